"""Say what is weak about a cell table, in sentences a person can act on; the worst first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte.cells.checks.balance import describe_attrition, describe_imbalance
from bayes_hte.cells.checks.labels import describe_similar_arms, describe_similar_levels, describe_totals
from bayes_hte.cells.checks.outliers_simpson import describe_outliers, describe_reversals
from bayes_hte.cells.checks.proportional_hazards import describe_changing_hazards
from bayes_hte.cells.checks.sample_ratio import describe_mismatches
from bayes_hte.cells.checks.unit_rows import describe_summed_rows, describe_tiny_levels
from bayes_hte.cells.checks.wording import MAX_NAMED_SEGMENTS, list_first, locate_condition, quote_column, shorten_label
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, INTERVAL, SEGMENT, VALUE

MIN_UNITS_PER_ARM = 10
"""With fewer units an arm's mean says next to nothing: its standard error is a third of the SD or more."""


@dataclass(frozen=True, slots=True)
class DataFindings:
    """Sentences in which the checks say what they found.

    Attributes
    ----------
    validity_warnings : tuple of str
        What may make every comparison of the arms wrong: their shares of the units, dimensions that the treatment may
        have changed, units that are repeated or in several arms, differed before it or were lost at different rates.
    other_findings : tuple of str
        The notes of the reduction; then what turns round, is carried by one unit, missing, tiny or constant.
    """

    validity_warnings: tuple[str, ...]
    other_findings: tuple[str, ...]


def check(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> tuple[str, ...]:
    """Say what is weak about the cells before any model sees them; nothing here prevents an analysis.

    Parameters
    ----------
    cells
        A cell table, dims (segment, arm).
    shares
        The planned share of each arm, or numbers in proportion to them; in place of those that the cells state.

    Returns
    -------
    tuple of str
        What may make the comparison of the arms wrong; the notes of the reduction; then what turns round, hangs on one
        unit, is missing, tiny or constant. Empty if there is nothing to say.

    Raises
    ------
    DataError
        If this is no cell table, or the shares are not those of the arms.

    Notes
    -----
    These are tests, and speak where p < .001:

    - the arms' shares of the units against the planned ones, overall and, with Holm's correction, in each segment; see
      `sample_ratio`. Where no plan is stated the arms are held to equal shares, and segments to each other;
    - for each dimension, whether its levels are distributed alike over the arms: a chi-square test of independence,
      with Holm's correction for the number of dimensions. Levels of which an arm expects fewer than 5 units are put
      together. A dimension with a level that the treatment changes is uneven, though the randomisation was sound;
    - means of what was measured before treatment (``pre_mean``): Welch's test and an analysis of variance, both of
      which must agree, with Holm's correction for the number of covariates;
    - of survival, whether the hazard ratio is the same in all intervals of time: a chi-square test of treated failures
      given those of both arms, in every segment;
    - the rate of missing numbers (``n_missing``): a chi-square test. Rows are taken to be missing one by one, also
      where a unit has several.

    So a sound experiment, analysed with its planned shares, raises each of the five alarms with probability .001, and
    some alarm with probability .005 at most. In 20,000 simulated ones with eight segments in two dimensions, three
    covariates and 2 % missing numbers, 0.48 % raised one.

    The rest are facts, not tests: levels that are totals of others by their name or their sums; labels that differ only
    in case, spaces or Unicode form; rows that look like sums, as every cell has equally many; segments that mostly hold
    a unit or two; a cell of 10 units or more of which one makes up more than half of the sum of squares; an effect with
    one sign in every segment and the other one in their sum (said only where segments' shares differ between the arms
    by more than chance); empty cells, and cells of fewer than 10 units.

    References
    ----------
    Fabijan et al. 2019, Diagnosing sample ratio mismatch in online controlled experiments, KDD '19.
    Kohavi, Tang & Xu 2020, Trustworthy online controlled experiments, chapters 3 and 21.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_summary
    >>> table = pd.DataFrame(
    ...     {
    ...         "device": ["mobile", "mobile", "tv"],
    ...         "arm": ["old", "new", "old"],
    ...         "n": [100, 100, 9],
    ...         "bought": [10, 12, 5],
    ...     }
    ... )
    >>> cells = from_summary(table, arm="arm", control="old", segments=["device"], n="n", events="bought")
    >>> for sentence in check(cells):
    ...     print(sentence)
    1 segment lacks an arm: tv (no new); kept, but the effect there comes from the prior
    1 segment has fewer than 10 units in an arm: tv; what is said there is mostly borrowed from the other segments
    """
    data_findings = collect_findings(cells, shares)
    return (*data_findings.validity_warnings, *data_findings.other_findings)


def collect_findings(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> DataFindings:
    """Collect the sentences of `check` in two parts: those to read before any result, and those on the data."""
    cell_table.check_cell_table(cells)
    has_data = cell_table.has_data(cells)
    # The worst first: nothing else matters where the arms do not hold what a randomisation would give.
    validity_warnings = [
        *describe_mismatches(cells, shares),
        *cell_table.list_validity_warnings(cells),
        *describe_totals(cells),
        *describe_similar_arms(cells),
        *describe_attrition(cells),
        *describe_imbalance(cells),
    ]
    other_findings = [
        *cell_table.list_notes(cells),
        *describe_similar_levels(cells),
        *describe_summed_rows(cells),
        *describe_tiny_levels(cells),
        *describe_changing_hazards(cells),
        *describe_reversals(cells),
        *describe_outliers(cells),
        *_describe_shared_controls(cells, has_data),
        *_describe_missing_arms(has_data),
        *_describe_empty_segments(has_data),
        *_describe_tiny_segments(cells),
        *_describe_constant_cells(cells),
        *_describe_eventless_cells(cells),
    ]
    return DataFindings(tuple(dict.fromkeys(validity_warnings)), tuple(dict.fromkeys(other_findings)))


def _describe_shared_controls(cells: xr.Dataset, has_data: xr.DataArray) -> list[str]:
    """Describe estimates of several arms in one segment, which are taken to be independent."""
    if "estimate" not in cells:
        return []
    shares_control = has_data.sum(ARM) > 1
    if not bool(shares_control.any()):
        return []
    # Cov(y_a − y_0, y_b − y_0) = Var y_0
    return [
        f"{write_count(int(shares_control.sum()), 'segment has', 'segments have')} estimates of several arms: "
        f"{_name_segments(shares_control)}; the arms are taken to be independent, but arms that share a control are "
        "not: effects of one arm are right, comparisons between arms come out too uncertain; give rows or summaries of "
        "the units, control included, where arms are to be compared"
    ]


def _describe_missing_arms(has_data: xr.DataArray) -> list[str]:
    """Describe arms without data, and segments that have some of the other arms, but not all."""
    missing_arms = has_data[ARM].values[~has_data.any(SEGMENT).values]
    sentences = [
        f"the arm {quote_column(arm)} has no data in any segment; its effects come from the prior"
        for arm in missing_arms
    ]
    # Arms without any data are named above: else every segment would lack them.
    known_arms = has_data.sel({ARM: has_data.any(SEGMENT)})
    is_partial = known_arms.any(ARM) & ~known_arms.all(ARM)
    partial_count = int(is_partial.sum())
    if partial_count:
        partial_segments = write_count(partial_count, "segment lacks", "segments lack")
        segment_names = _name_segments(
            is_partial,
            lambda segment_index: (
                f"{_label_segment(known_arms, segment_index)} ({_list_absent_arms(known_arms, segment_index)})"
            ),
        )
        sentences.append(f"{partial_segments} an arm: {segment_names}; kept, but the effect there comes from the prior")
    return sentences


def _list_absent_arms(has_data: xr.DataArray, segment_index: int) -> str:
    """List the arms that a segment lacks."""
    absent_arms = has_data[ARM].values[~has_data.transpose(SEGMENT, ARM).values[segment_index]]
    return list_first([f"no {shorten_label(arm)}" for arm in absent_arms])


def _describe_empty_segments(has_data: xr.DataArray) -> list[str]:
    """Describe segments without data in any arm."""
    is_empty = ~has_data.any(ARM)
    empty_count = int(is_empty.sum())
    if not empty_count:
        return []
    empty_segments = write_count(empty_count, "segment has", "segments have")
    return [
        f"{empty_segments} no data in any arm: {_name_segments(is_empty)}; kept, but all said of it comes from the "
        "prior"
    ]


def _describe_tiny_segments(cells: xr.Dataset) -> list[str]:
    """Describe segments that have an arm with fewer units than `MIN_UNITS_PER_ARM`, but some."""
    if "n" not in cells:  # published means may come without numbers of units
        return []
    is_tiny = ((cells["n"] > 0) & (cells["n"] < MIN_UNITS_PER_ARM)).any(ARM)
    tiny_count = int(is_tiny.sum())
    if not tiny_count:
        return []
    tiny_segments = write_count(tiny_count, "segment has", "segments have")
    return [
        f"{tiny_segments} fewer than {MIN_UNITS_PER_ARM} units in an arm: {_name_segments(is_tiny)}; "
        "what is said there is mostly borrowed from the other segments"
    ]


def _describe_constant_cells(cells: xr.Dataset) -> list[str]:
    """Describe cells of two units or more whose outcomes are all equal."""
    # A single unit cannot vary, and an empty cell is described elsewhere: n > 1.
    if "ss" in cells:
        is_constant = (cells["n"] > 1) & (cells["ss"] == 0)
    elif "histogram" in cells:
        is_constant = (cells["n"] > 1) & (cells["histogram"].max(VALUE) == cells["n"])
    elif "events" in cells and "exposure" not in cells:
        is_constant = (cells["n"] > 1) & ((cells["events"] == 0) | (cells["events"] == cells["n"]))
    else:
        return []
    constant_count = int(is_constant.sum())
    if not constant_count:
        return []
    constant_cells = write_count(constant_count, "cell has", "cells have")
    return [
        f"{constant_cells} no variation in the outcome{locate_condition(is_constant)}; raw estimates there look more "
        "certain than they are"
    ]


def _describe_eventless_cells(cells: xr.Dataset) -> list[str]:
    """Describe cells with rates or survival in which nothing happened, though there was time for it."""
    # The logarithm of a rate of 0 is −∞: the raw estimate has no finite error.
    if "exposure" in cells:
        is_eventless = (cells["exposure"] > 0) & (cells["events"] == 0)
    elif "failures" in cells:
        is_eventless = (cells["n"] > 0) & (cells["failures"].sum(INTERVAL) == 0)
    else:
        return []
    eventless_count = int(is_eventless.sum())
    if not eventless_count:
        return []
    return [
        f"no events in {write_count(eventless_count, 'cell', 'cells')}{locate_condition(is_eventless)}; raw "
        "estimates there are 0 or unbounded"
    ]


def _label_segment(segments: xr.DataArray, segment_index: int) -> str:
    """Label a segment for a sentence."""
    return shorten_label(segments[SEGMENT].values[segment_index])


def _name_segments(condition: xr.DataArray, name_segment: Callable[[int], str] | None = None) -> str:
    """Name the first few segments where a condition holds, and count the others."""
    segment_indices = np.flatnonzero(condition.values)
    shown_names = [
        _label_segment(condition, int(segment_index)) if name_segment is None else name_segment(int(segment_index))
        for segment_index in segment_indices[:MAX_NAMED_SEGMENTS]
    ]
    # The others are counted only: thousands of labels need not be made.
    return list_first(shown_names + [""] * (len(segment_indices) - len(shown_names)))
