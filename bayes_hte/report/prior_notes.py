"""The part of the priors: power-scaling sensitivities in two sentences and a short table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import clean_text, shorten_text
from bayes_hte.criticism.prior_sensitivity import MIN_NOTICEABLE_SENSITIVITY, tabulate_sensitivity
from bayes_hte.errors import DataError, ModelError
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.report.notation import join_names

MAX_SENSITIVITY_ROWS = 12
"""What segments share comes first; of the segments the most sensitive ones."""


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """Row of one quantity: its two sensitivities, and what follows from them."""

    quantity_name: str
    prior_sensitivity: str
    data_sensitivity: str
    diagnosis: str


@dataclass(frozen=True, slots=True)
class PriorNotes:
    """Two sentences and the table under them."""

    summary_sentences: str
    sensitivity_rows: list[SensitivityRow]


def collect_prior_notes(fit_tree: xr.DataTree, question: EffectQuestion) -> PriorNotes:
    """Collect how much the reported numbers owe to the priors."""
    try:
        sensitivity_table = tabulate_sensitivity(fit_tree, question)
    # Very large fits and callers' own models are not examined: the page says why.
    except (DataError, ModelError) as nothing:
        return PriorNotes(f"Whether the priors matter was not examined: {nothing}.", [])
    # Quantities whose draws do not vary have no sensitivity: NaN.
    known_sensitivities = sensitivity_table.dropna()
    if known_sensitivities.empty:
        return PriorNotes("Whether the priors matter could not be computed from these draws.", [])
    # What segments share comes first, as it moves all of them.
    shared_quantities = known_sensitivities[~known_sensitivities["quantity"].str.startswith("effect[")]
    segment_quantities = known_sensitivities.drop(shared_quantities.index).sort_values("prior", ascending=False)
    shown_sensitivities = pd.concat([shared_quantities, segment_quantities]).head(MAX_SENSITIVITY_ROWS)
    return PriorNotes(
        _write_summary(known_sensitivities),
        [_build_sensitivity_row(sensitivity_record) for sensitivity_record in shown_sensitivities.to_dict("records")],
    )


def _write_summary(sensitivity_table: pd.DataFrame) -> str:
    moved_quantities = sensitivity_table[sensitivity_table["prior"] >= MIN_NOTICEABLE_SENSITIVITY].sort_values(
        "prior", ascending=False
    )
    threshold_meaning = (
        f"{MIN_NOTICEABLE_SENSITIVITY:g} or more is noticeable: it moves a number by a third of its SD when the prior "
        "counts twice"
    )
    if moved_quantities.empty:
        return (
            f"The priors hardly matter: of {len(sensitivity_table):,} numbers examined none is noticeably sensitive to "
            f"them; the largest sensitivity is {sensitivity_table['prior'].max():.2f} ({threshold_meaning})."
        )
    return (
        f"The priors matter for {len(moved_quantities):,} of {len(sensitivity_table):,} numbers examined: "
        f"{join_names([str(quantity_name) for quantity_name in moved_quantities['quantity']])} ({threshold_meaning}). "
        "Say so with the results, and fit again under other priors before acting on these numbers."
    )


def _build_sensitivity_row(table_row: Mapping[Any, Any]) -> SensitivityRow:
    return SensitivityRow(
        shorten_text(clean_text(str(table_row["quantity"])), 60),
        f"{table_row['prior']:.2f}",
        f"{table_row['likelihood']:.2f}",
        str(table_row["diagnosis"]),
    )
