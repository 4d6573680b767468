"""Read a sheet of a workbook (Excel, OpenDocument), where the extra is installed: the first row is its header."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_hte.cells.reading.files.databases import choose_table
from bayes_hte.cells.reading.files.load_rows import load_rows
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    import duckdb


def open_workbook(
    connection: "duckdb.DuckDBPyConnection", file_path: str, sheet: str | None, label_columns: Sequence[str]
) -> "duckdb.DuckDBPyRelation":
    """Load a sheet and return it as a relation of DuckDB; formulas give the values that the workbook holds of them.

    Raises
    ------
    DataError
        If the extra is not installed, there is no such sheet, none is named and there are several, or its header
        leaves doubts.
    """
    file_name = Path(file_path).name
    try:
        import python_calamine
    except ImportError:
        raise DataError(
            f"reading the workbook {file_name} needs an extra: pip install 'bayes-hte[excel]', or save the sheet as "
            "CSV UTF-8"
        ) from None
    with python_calamine.CalamineWorkbook.from_path(file_path) as workbook:
        chosen = choose_table(sheet, workbook.sheet_names, file_name, "sheet")
        rows = workbook.get_sheet_by_name(chosen).to_python()
    # Empty lines above and between are for the eye.
    filled_rows = [row for row in rows if any(value != "" for value in row)]
    if not filled_rows:
        raise DataError(f"the sheet {chosen!r} of {file_name} is empty; write a header and rows into it")
    header, *body = filled_rows
    # Columns without a header are notes beside the table.
    places = [i for i, name in enumerate(header) if name != ""]
    names = [_name_column(header[i]) for i in places]
    if repeated := [name for name, count in Counter(map(str.lower, names)).items() if count > 1]:
        raise DataError(f"column names repeat in the sheet {chosen!r} of {file_name}: {repeated[0]!r}; rename them")
    return load_rows(
        connection, names, ([None if row[i] == "" else row[i] for i in places] for row in body), label_columns
    )


def _name_column(value: Any) -> str:
    """Name a column by its header, where whole numbers are floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
