"""Posterior predictive checks: silent for data from the model, loud where the family or the shape is wrong."""

import numpy as np
import pytest
import xarray as xr
from example_cells import example, table

import bayes_hte as hte


def named(found: object, start: str) -> object:
    return found[found["check"].str.startswith(start)].iloc[0]  # type: ignore[index]


@pytest.mark.parametrize(
    "name", ["conversion", "rates", "counts", "ordered-scale", "survival", "revenue", "conversion-outliers"]
)
def test_every_family_has_checks_that_hold_together(name: str) -> None:
    model = hte.read_model(name)
    found = hte.fit(example(model.family, arms=("control", "email")), model, draws=800).predictive_checks()
    assert list(found.columns) == ["check", "observed", "expected", "low", "high", "p", "verdict", "reliable"]
    assert found["p"].between(0, 1).all()
    assert (found["low"] <= found["high"]).all()
    inside = (found["observed"] >= found["low"]) & (found["observed"] <= found["high"])
    assert (found.loc[inside & ~found["check"].str.startswith("furthest"), "p"].between(0.01, 0.99)).all()


def histogram(counts: np.ndarray) -> xr.Dataset:
    """Units (segment, arm, unit) as a histogram."""
    values = np.arange(counts.max() + 1)
    units = (counts[..., None] == values).sum(2)
    labels = [f"s{i}" for i in range(len(counts))]
    return xr.Dataset(
        {"n": (("segment", "arm"), units.sum(-1)), "histogram": (("segment", "arm", "value"), units)},
        coords={"segment": labels, "arm": ["c", "t"], "value": values.astype(float), "plan": ("segment", labels)},
        attrs={"outcome": "y", "control": "c", "dimensions": '["plan"]', "notes": "[]"},
    )


def test_too_many_zeros_are_noticed() -> None:
    """Poisson counts with half of the units never active at all have more zeros than a negative binomial expects."""
    rng = np.random.default_rng(3)
    active = rng.random((6, 2, 3000)) < 0.5
    honest = rng.negative_binomial(1.5, 1.5 / (1.5 + 4.0), (6, 2, 3000))
    inflated = np.where(active, rng.poisson(8.0, (6, 2, 3000)), 0)
    for counts, verdict in ((honest, "as expected"), (inflated, "more than the model expects")):
        found = hte.fit(histogram(counts), "counts").predictive_checks()
        zeros = named(found, "units with a count of 0")
        assert zeros["verdict"] == verdict  # type: ignore[index]


def test_a_segment_far_from_all_others_is_named() -> None:
    """Sixty segments with effects near 0.1 and one at 1.1: under normal effects a surprise, less under heavy tails."""
    rng = np.random.default_rng(5)
    effects = np.concatenate([rng.normal(0.1, 0.1, 60), [1.1]])[:, None]
    se = np.full_like(effects, 0.05)
    cells = table({"estimate": effects, "se": se}, arms=("t",), control="")
    normal = hte.read_model("published-estimates")
    found = named(hte.fit(cells, normal).predictive_checks(), "furthest")
    assert "s60" in found["check"]  # type: ignore[index]
    assert found["verdict"] == "more than the model expects"  # type: ignore[index]
    tails = normal.model_copy(update={"effect": normal.effect.model_copy(update={"shape": "student_t", "nu": 3.0})})
    heavier = named(
        hte.fit(cells, hte.Model.model_validate(tails.model_dump(exclude_none=True))).predictive_checks(), "furthest"
    )
    assert heavier["p"] > 10 * found["p"]  # type: ignore[index]


def test_effects_from_the_model_are_no_surprise() -> None:
    """The p-value of the furthest segment is roughly uniform: of 40 data sets few are marked, and not all are high."""
    rng = np.random.default_rng(9)
    p = []
    for _ in range(40):
        effects = rng.normal(0.2, 0.3, (25, 1))
        cells = table(
            {"estimate": effects + rng.normal(0, 0.1, (25, 1)), "se": np.full((25, 1), 0.1)}, arms=("t",), control=""
        )
        p.append(named(hte.fit(cells, "published-estimates", draws=800).predictive_checks(), "furthest")["p"])  # type: ignore[index]
    # Binomial(40, .02) exceeds 5 with probability 4e-4; a uniform mean of 40 leaves (.25, .75) with 4e-8.
    assert sum(each < 0.01 or each > 0.99 for each in p) <= 5
    assert 0.25 < np.mean(p) < 0.75


def test_totals_with_ties_are_no_surprise(schools: xr.Dataset) -> None:
    found = hte.fit(schools, "published-estimates", draws=400).predictive_checks()
    assert found["check"].str.startswith("cells").any()
    assert (found["verdict"] == "as expected").any()
