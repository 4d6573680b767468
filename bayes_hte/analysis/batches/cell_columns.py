"""Find out which columns of a long table hold what, once and from its header, and read the cells of one problem."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import check_column_names, describe_value, list_mapping_items
from bayes_hte.cells.reading.engines import check_dimensions
from bayes_hte.cells.reading.labels import format_label
from bayes_hte.cells.summaries.column_vocabulary import ARM_WORDS, CONTROL_LABELS, ROLE_BY_WORDS, split_words
from bayes_hte.cells.summaries.from_levels import from_levels
from bayes_hte.cells.summaries.from_summary import from_estimates, from_summary
from bayes_hte.cells.summaries.from_table import ESTIMATE_FORMS, LEVEL_FORMS
from bayes_hte.cells.summaries.statistics_given import SUMMARY_FORMS, check_uncertainty, choose_conversion
from bayes_hte.errors import ArgumentError, DataError

type ColumnKind = Literal["number", "label", "other"]
"""What a column can be without being named: a statistic, a dimension, or nothing."""


@dataclass(frozen=True, slots=True)
class CellColumns:
    """The columns of a long table by what they hold; plain values, so that they travel to the workers of a cluster.

    Attributes
    ----------
    keys : tuple of str
        Columns that tell the problems apart.
    dims : tuple of str
        Dimensions of every problem.
    arm : str or None
        Column of the arms; None for estimates of a single arm.
    control : str or None
        The control of every problem; None where an arm is called control or placebo, or estimates need none.
    column_by_role : mapping
        Columns of statistics, by the roles that `from_summary`, `from_levels` or `from_estimates` knows.
    """

    keys: tuple[str, ...]
    dims: tuple[str, ...]
    arm: str | None
    control: str | None
    column_by_role: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """All columns that are read."""
        return [*self.keys, *self.labels, *self.column_by_role.values()]

    @property
    def labels(self) -> list[str]:
        """Columns whose values become text: the dimensions and the arm."""
        return [*self.dims, *([] if self.arm is None else [self.arm])]

    @property
    def holds_estimates(self) -> bool:
        """Whether the numbers are effects already, so that there is no control."""
        return not {"estimate", "ratio"}.isdisjoint(self.column_by_role)

    def read_cells(self, values_by_column: Mapping[str, Sequence[Any]]) -> xr.Dataset:
        """Read the cells of one problem; its rows may come in any order, from any table engine.

        Raises
        ------
        DataError
            As the function of `hte.cells` that reads the columns, or if no control is known.
        """
        # The order of rows, and that of categories, is the engine's own: sorted text gives the same cells everywhere.
        texts_by_column = {name: [format_label(value) for value in values_by_column[name]] for name in self.labels}
        row_texts = list(zip(*texts_by_column.values(), strict=True))
        row_order = sorted(
            range(len(row_texts)), key=lambda row: [(text is None, text or "") for text in row_texts[row]]
        )
        # Python's own values: a float for a whole number with gaps is the same number to the readers.
        table = pd.DataFrame(
            {
                name: pd.Series([values[row] for row in row_order], dtype=object)
                for name, values in (
                    {name: values_by_column[name] for name in self.column_by_role.values()} | texts_by_column
                ).items()
            }
        )
        options: dict[str, Any] = {"segments": list(self.dims), **self.column_by_role}
        if self.holds_estimates:
            return from_estimates(table, arm=self.arm, **options)
        control = self.control if self.control is not None else find_control(texts_by_column[str(self.arm)])
        if "value" in self.column_by_role:
            return from_levels(table, arm=str(self.arm), control=control, **options)
        return from_summary(table, arm=str(self.arm), control=control, **options)


def find_control(arm_texts: Sequence[str | None]) -> str:
    """Find the only arm whose name says that it is the control; raise DataError if none or several do."""
    named_controls = sorted({text for text in arm_texts if text is not None and text.casefold() in CONTROL_LABELS})
    if len(named_controls) == 1:
        return named_controls[0]
    known_arms = quote_names(sorted({text for text in arm_texts if text is not None}))
    doubt = "several arms could be the control" if named_controls else "no arm is called control or placebo"
    raise DataError(f"{doubt}; arms are {known_arms}; name the control as control=…")


def choose_cell_columns(
    kind_by_column: Mapping[str, ColumnKind],
    *,
    keys: Sequence[str],
    segments: Sequence[str] | None,
    arm: str | None,
    control: str | None,
    statistics: Mapping[str, str] | None,
) -> CellColumns:
    """Choose the columns of a long table from its header: those that are named, the others by what they are called.

    Raises
    ------
    ArgumentError
        If a column is not there or used twice, or what was not named can be none or several columns.
    DataError
        If a dimension has a name that cell tables reserve.
    """
    key_columns = _check_keys(keys)
    stated_dims = [] if segments is None else check_column_names("segments", segments)
    if arm is not None and not isinstance(arm, str):
        raise ArgumentError(f"arm must be the name of one column, not {describe_value(arm)}")
    stated_roles = {} if statistics is None else _check_statistics(statistics)
    # First what is named: a key that is misspelt would else be taken for a dimension, under its right name.
    stated_columns = [*key_columns, *stated_dims, *([] if arm is None else [arm]), *stated_roles.values()]
    _check_columns_exist(stated_columns, [*kind_by_column])
    free_columns = {name: kind for name, kind in kind_by_column.items() if name not in key_columns}
    column_by_role = stated_roles or _find_statistics(
        [name for name, kind in free_columns.items() if kind == "number" and name not in stated_columns]
    )
    is_estimate = not {"estimate", "ratio"}.isdisjoint(column_by_role)
    if arm is None:
        used = {*column_by_role.values(), *stated_dims}
        arm = _find_arm([name for name in free_columns if name not in used], is_optional=is_estimate)
    used_columns = {arm, *column_by_role.values()}
    # Text only: numbers and dates that nobody named are more often results, versions or times than dimensions.
    dims = stated_dims or [name for name, kind in free_columns.items() if kind == "label" and name not in used_columns]
    if not dims:
        raise ArgumentError(
            f"no column is left for the segments among {quote_names([*kind_by_column])}; name one as segments=[…]"
        )
    named_roles = {"arm": arm, **column_by_role, **{f"keys[{i}]": name for i, name in enumerate(key_columns)}}
    dims = check_dimensions(dims, named_roles)
    control_text = None if control is None else format_label(control)
    return CellColumns(tuple(key_columns), tuple(dims), arm, control_text, column_by_role)


def _check_columns_exist(column_names: Sequence[str], known_columns: Sequence[str]) -> None:
    """Raise ArgumentError if a column that is named is not there."""
    missing = [name for name in column_names if name not in known_columns]
    if missing:
        near_names = [near for name in missing for near in difflib.get_close_matches(name, known_columns, n=1)]
        hint = f"did you mean {quote_names(near_names)}? " if near_names else ""
        raise ArgumentError(f"the table lacks {quote_names(missing)}; {hint}columns are {quote_names(known_columns)}")


def _check_keys(keys: object) -> list[str]:
    """Check the names of the columns that tell problems apart."""
    key_columns = check_column_names("keys", keys)
    if not key_columns:
        raise ArgumentError("keys is empty; name the columns that tell the problems apart, such as ['experiment']")
    return key_columns


def _check_statistics(statistics: object) -> dict[str, str]:
    """Check the roles and columns of statistics that a caller names."""
    pairs = list_mapping_items("statistics", statistics, '{"n": "users", "events": "buyers"}')
    for role, column in pairs:
        if not isinstance(role, str) or not isinstance(column, str):
            raise ArgumentError(f"statistics has {describe_value(role)}: {describe_value(column)}; both must be text")
    column_by_role = {str(role): str(column) for role, column in pairs}
    needed_roles = {role: column for role, column in column_by_role.items() if role != "size"}
    if not {"estimate", "ratio"}.isdisjoint(needed_roles):
        unknown = needed_roles.keys() - {"estimate", "ratio", "se", "lower", "upper", "n"}
        if unknown:
            roles_text = quote_names(sorted(unknown))
            raise ArgumentError(f"estimates have no {roles_text}; give estimate and se, with n if known")
        check_uncertainty(
            {role: column for role, column in needed_roles.items() if role != "n"}, 0.95, has_covariance=False
        )
    elif needed_roles.keys() != {"value", "count"}:
        choose_conversion(needed_roles)
    return column_by_role


def _find_statistics(number_columns: Sequence[str]) -> dict[str, str]:
    """Find the columns of statistics by their names, as `from_table` does; raise ArgumentError if in doubt."""
    columns_by_role: dict[str, list[str]] = {}
    for name in number_columns:
        role = ROLE_BY_WORDS.get(split_words(name))
        if role is not None:
            columns_by_role.setdefault(role, []).append(name)
    # A column called n or users may also be the count of a long table of values.
    columns_by_role["count"] = columns_by_role.get("count", []) + columns_by_role.get("n", [])
    forms = [form for form in (*SUMMARY_FORMS, *LEVEL_FORMS, *ESTIMATE_FORMS) if all(map(columns_by_role.get, form))]
    # A form that is a part of another one leaves columns unused: n and events of n, events and exposure.
    largest_forms = [form for form in forms if not any(form < other for other in forms)]
    is_clear = len(largest_forms) == 1 and all(len(columns_by_role[role]) == 1 for role in largest_forms[0])
    if not is_clear:
        doubt = "no columns of statistics are known" if not forms else "the columns of statistics are in doubt"
        raise ArgumentError(
            f"{doubt} among {quote_names(number_columns)}; name them by role, as in "
            'statistics={"n": "users", "events": "buyers"}'
        )
    return {role: columns_by_role[role][0] for role in sorted(largest_forms[0])}


def _find_arm(column_names: Sequence[str], *, is_optional: bool) -> str | None:
    """Find the column of the arms by its name; None where estimates may do without."""
    arm_columns = [name for name in column_names if split_words(name) in ARM_WORDS]
    if len(arm_columns) == 1:
        return arm_columns[0]
    if is_optional and not arm_columns:
        return None
    doubt = f"{quote_names(arm_columns)} may all be the arm" if arm_columns else "no column is called arm or variant"
    raise ArgumentError(f"{doubt}; name the column of the arms as arm=…")
