"""Whether the priors matter: power-scaling sensitivities in two sentences and a short table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte import sensitivity
from bayes_hte.errors import DataError, ModelError
from bayes_hte.plot.text import clean, shorten
from bayes_hte.report.notation import listing
from bayes_hte.sensitivity import NOTICEABLE
from bayes_hte.summary import Question

MOST_ROWS = 12
"""What segments share comes first; of the segments the most sensitive ones."""


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity, its two sensitivities, and what they say."""

    quantity: str
    prior: str
    data: str
    diagnosis: str


@dataclass(frozen=True, slots=True)
class Priors:
    """Two sentences and the table under them."""

    summary: str
    lines: list[Line]


def collect(tree: xr.DataTree, question: Question) -> Priors:
    """How much the reported numbers owe to the priors."""
    try:
        found = sensitivity.sensitivity(tree, question)
    except (DataError, ModelError) as nothing:
        return Priors(f"Whether the priors matter was not examined: {nothing}.", [])
    known = found.dropna()
    if known.empty:
        return Priors("Whether the priors matter could not be computed from these draws.", [])
    shared = known[~known["quantity"].str.startswith("effect[")]
    segments = known.drop(shared.index).sort_values("prior", ascending=False)
    shown = pd.concat([shared, segments]).head(MOST_ROWS)
    return Priors(_summary(known), [_line(row) for row in shown.to_dict("records")])


def _summary(found: pd.DataFrame) -> str:
    moved = found[found["prior"] >= NOTICEABLE].sort_values("prior", ascending=False)
    means = f"{NOTICEABLE:g} or more is noticeable: it moves a number by a third of its SD when the prior counts twice"
    if moved.empty:
        return (
            f"The priors hardly matter: of {len(found):,} numbers examined none is noticeably sensitive to them; the "
            f"largest sensitivity is {found['prior'].max():.2f} ({means})."
        )
    return (
        f"The priors matter for {len(moved):,} of {len(found):,} numbers examined: "
        f"{listing([str(name) for name in moved['quantity']])} ({means}). "
        "Say so with the results, and fit again under other priors before acting on these numbers."
    )


def _line(row: Mapping[Any, Any]) -> Line:
    return Line(
        shorten(clean(str(row["quantity"])), 60),
        f"{row['prior']:.2f}",
        f"{row['likelihood']:.2f}",
        str(row["diagnosis"]),
    )
