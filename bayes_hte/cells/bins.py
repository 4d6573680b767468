"""Cut numbers and dates into levels, inside the engine that holds them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any, Literal

from bayes_hte.asked import whole
from bayes_hte.cells.labels import bin_label, is_missing, text_of
from bayes_hte.cells.sources import fetch, listed
from bayes_hte.cells.statistics import ask_quantiles
from bayes_hte.errors import DataError

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

Period = Literal["day", "week", "month", "quarter", "year"]
type Bins = int | Sequence[float] | Period
"""Into how many bins of about equal size, or where to cut, or the period that dates are put together by."""

PERIODS = ("day", "week", "month", "quarter", "year")

MOST = 100
"""More bins than this were meant to be something else."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Numbers cut into bins that include their lower ends."""

    edges: tuple[float, ...]

    def expression(self, column: "nw.Expr") -> "nw.Expr":
        """The number of the bin; null where the number is missing or infinite."""
        import narwhals.stable.v2 as nw

        steps = [nw.when(column >= edge).then(1).otherwise(0) for edge in self.edges]
        total = steps[0]
        for step in steps[1:]:
            total = total + step
        return nw.when(column.is_finite()).then(total)

    def label(self, text: str) -> str:
        """The level that a number of the bin, as text, stands for."""
        ends = (-math.inf, *self.edges, math.inf)
        return bin_label(ends[int(text)], ends[int(text) + 1])

    def told(self, dim: str) -> str:
        """What was done, as a note."""
        return f"{dim} is cut at {', '.join(str(text_of(edge)) for edge in self.edges)}"


@dataclass(frozen=True, slots=True)
class Calendar:
    """Dates put together by day, week, month, quarter or year."""

    period: Period
    zone: str = ""  # whose clock, if the dates are points in time

    def expression(self, column: "nw.Expr") -> "nw.Expr":
        """The day, also for a week, which not all engines know; else the number of the period: 202604 is in April.

        By the clock of the zone.
        """
        import narwhals.stable.v2 as nw

        local = column.dt.replace_time_zone(None) if self.zone else column
        if self.period in {"day", "week"}:
            return local.dt.truncate("1d")
        year, month = local.dt.year(), local.dt.month()
        match self.period:
            case "month":
                return year * 100 + month
            case "quarter":
                third, second, first = (nw.when(month >= begin).then(1).otherwise(0) for begin in (10, 7, 4))
                return year * 100 + first + second + third + 1
        return year

    def label(self, text: str) -> str:
        """The level that a day or number, as text, stands for."""
        match self.period:
            case "day":
                return text[:10]
            case "week":
                day = date.fromisoformat(text[:10])
                return f"week of {(day - timedelta(days=day.weekday())).isoformat()}"
            case "month":
                return f"{text[:-2]}-{text[-2:]}"
            case "quarter":
                return f"{text[:-2]} Q{text[-1]}"
        return text

    def told(self, dim: str) -> str:
        """What was done, as a note."""
        return f"{dim} is put together by {self.period}" + (f", by the clock of {self.zone}" if self.zone else "")


type Cut = Cuts | Calendar


def check_bins(bins: Mapping[str, Bins], dims: Sequence[str]) -> dict[str, Bins]:
    """Return the bins asked for, if they can be made.

    Raises
    ------
    DataError
        If a dimension is not among the segments, or its bins are no count, cuts or period.
    """
    if not isinstance(bins, Mapping):
        raise DataError(f"bins are {bins!r}; say of which dimension they are, as in bins={{{dims[0]!r}: {bins!r}}}")
    bins = {dim: asked if (count := whole(asked)) is None else count for dim, asked in bins.items()}  # NumPy's as well
    for dim, asked in bins.items():
        if dim not in dims:
            raise DataError(f"bins are asked for {dim!r}, which is not among the segments {listed(dims)}; add it there")
        if isinstance(asked, str):
            if asked not in PERIODS:
                raise DataError(f"bins of {dim!r} are {asked!r}; dates are put together by {', '.join(PERIODS)}")
        elif isinstance(asked, bool) or (isinstance(asked, int) and not 2 <= asked <= MOST):
            raise DataError(f"bins of {dim!r} are {asked!r}; give a number from 2 to {MOST}, or the cuts as a list")
        elif not isinstance(asked, int):
            _check_edges(dim, asked)
    return dict(bins)


def _check_edges(dim: str, asked: Sequence[float]) -> None:
    try:
        edges = [float(edge) for edge in asked]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"bins of {dim!r} must be cuts such as [18, 35], a number of bins or a period such as 'day': {error}"
        ) from error
    ascending = all(one < other for one, other in itertools.pairwise(edges))
    if not edges or len(edges) >= MOST or not ascending or not all(map(math.isfinite, edges)):
        raise DataError(
            f"the cuts of {dim!r} must be finite and ascend, 1 to {MOST - 1} of them, but are {edges[:10]}; "
            "sort them, and leave out repetitions"
        )


def cuts_of(frame: "nw.LazyFrame[Any]", column: str, *, dim: str, asked: Bins, name: str) -> Cut:
    """Decide where to cut; quantiles are asked of the engine, over all rows together.

    Parameters
    ----------
    frame
        Rows.
    column
        Column of float64 in it; of dates for a period.
    dim
        What the dimension is called.
    asked
        The bins.
    name
        What messages call the rows.

    Raises
    ------
    DataError
        If all numbers are equal, or missing, or dates are none.
    """
    if isinstance(asked, str):
        return Calendar(asked, zone=_zone(frame, column, dim, name))
    if not isinstance(asked, int):
        return Cuts(tuple(float(edge) for edge in asked))
    at = quantiles(frame, column, [i / asked for i in range(asked)], what=f"the dimension {dim!r}", name=name)
    edges = _short(frame, column, sorted(set(at[1:]) - {at[0]}), name)
    if not edges:
        raise DataError(
            f"the dimension {dim!r} cannot be cut into {asked} bins: too many units have the value "
            f"{text_of(at[0])}; state the cuts, or leave the bins out"
        )
    return Cuts(tuple(edges))


def _zone(frame: "nw.LazyFrame[Any]", column: str, dim: str, name: str) -> str:
    """The time zone whose clock says where a day begins: a column's own, or the engine's; "" if dates have none.

    Raises
    ------
    DataError
        If the column holds no dates.
    """
    import narwhals.stable.v2 as nw

    dtype = frame.collect_schema()[column]
    if dtype in (nw.Date, nw.Datetime):
        zone = getattr(dtype, "time_zone", None) or ""
        return "the database" if zone and frame.implementation.is_ibis() else zone
    if dtype == nw.Unknown and (frame.implementation.is_pandas() or frame.implementation.is_dask()):
        kind = frame.to_native().dtypes[column]  # narwhals knows no zones with an underscore in their names
        if zone := getattr(getattr(kind, "pyarrow_dtype", kind), "tz", None):
            return str(zone)
    raise DataError(
        f"the dimension {dim!r} of {name} has dtype {dtype}, and a period needs dates; convert the column, as "
        "pandas.to_datetime does"
    )


def _short(frame: "nw.LazyFrame[Any]", column: str, edges: Sequence[float], name: str) -> list[float]:
    """The shortest numbers that cut the values as `edges` do.

    Engines round the quantiles between two values differently; any number between the two cuts alike.
    """
    import narwhals.stable.v2 as nw

    if not edges:
        return []
    value = nw.col(column)
    asked: dict[str, nw.Expr] = {}
    for i, edge in enumerate(edges):
        near = edge - 1e-12 * abs(edge)  # a quantile that is a value may come out a rounding error above it
        asked[f"below{i}"] = nw.when(value.is_finite() & (value < near)).then(value)
        asked[f"above{i}"] = nw.when(value.is_finite() & (value >= near)).then(value)
    pairs = [(nw.col(f"below{i}").max(), nw.col(f"above{i}").min()) for i in range(len(edges))]
    found = itertools.batched(fetch(frame.select(**asked).select(*itertools.chain(*pairs)), name)[0], 2)
    return sorted({_shortest(float(below), float(above)) for below, above in found if not is_missing(below)})


def _shortest(below: float, above: float) -> float:
    """The number with the fewest digits that is greater than `below`, but not than `above`.

    Examples
    --------
    >>> _shortest(17.0, 18.0), _shortest(2.8571, 3.1416), _shortest(-0.02, 0.0)
    (18.0, 3.0, 0.0)
    """
    exact = Decimal(repr(above))
    for digits in range(1, 17):
        edge = float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - digits + 1), rounding=ROUND_FLOOR))
        if below < edge <= above:
            return edge
    return above


def quantiles(
    frame: "nw.LazyFrame[Any]", column: str, probabilities: Sequence[float], *, what: str, name: str
) -> list[float]:
    """Quantiles over all finite values of a column, in between by straight lines, from the engine.

    Raises
    ------
    DataError
        If there is no finite value.
    """
    import narwhals.stable.v2 as nw

    value = nw.col(column)
    finite = frame.select(nw.when(value.is_finite()).then(value).alias("finite"))
    found = ask_quantiles(finite, "finite", probabilities, name=name)
    if not all(map(math.isfinite, found)):
        raise DataError(f"{what} has no finite value, so no quantile; check the column")
    return found
