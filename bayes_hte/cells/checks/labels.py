"""Say which labels a person would take for one, and which levels are totals of others."""

import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte.cells.checks.wording import list_first, quote_column, shorten_label
from bayes_hte.cells.reading.similar_labels import FOLD_HINT, group_similar_labels
from bayes_hte.cells.reading.total_levels import find_totals, is_total_name
from bayes_hte.spec.cell_table import ARM, list_dimensions


def describe_totals(cells: xr.Dataset) -> list[str]:
    """Describe levels that may be totals of the others."""
    sentences = []
    for total in find_totals(cells):
        level, dimension = quote_column(total.level), quote_column(total.dimension)
        if total.is_sum:
            sentences.append(
                f"the level {level} of {dimension} has the numbers of all other levels together, in every arm: is it "
                "their total? Then every unit counts twice: leave its rows out"
            )
        else:
            sentences.append(
                f"the level {level} of {dimension} is named like a total, though its numbers are not the sums of the "
                "others: if it holds units that the other levels hold too, these count twice: leave its rows out"
            )
    return sentences + [
        f"the arm {quote_column(arm)} is named like a total of the others: its units then count twice; leave it out"
        for arm in map(str, cells[ARM].values)
        if is_total_name(arm)
    ]


def describe_similar_arms(cells: xr.Dataset) -> list[str]:
    """Describe arms whose names differ only in case, spaces or Unicode form."""
    return [
        f"the arms {_quote_all(group)} differ only in case, spaces or Unicode form, and are taken for different arms; "
        f"if they are one, {FOLD_HINT}"
        for group in group_similar_labels(map(str, cells[ARM].values))
    ]


def describe_similar_levels(cells: xr.Dataset) -> list[str]:
    """Describe levels of a dimension whose names differ only in case, spaces or Unicode form."""
    sentences = []
    for dimension in list_dimensions(cells):
        groups = group_similar_labels(cells[dimension].values.astype(str).tolist())
        if groups:
            group_texts = list_first([_quote_all(group) for group in groups])
            sentences.append(
                f"{write_count(len(groups), 'level', 'levels')} of {quote_column(dimension)} "
                f"{'has' if len(groups) == 1 else 'have'} several spellings, each taken for a segment of its own: "
                f"{group_texts}; if they are one, {FOLD_HINT}"
            )
    return sentences


def _quote_all(labels: list[str]) -> str:
    """Quote labels so that spaces around them and Unicode forms are seen."""
    return " and ".join(ascii(shorten_label(label)) if not label.isascii() else repr(label[:40]) for label in labels)
