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


def binomial_cells(seed: int, *, outlier: float = 0.0, segments: int = 15, spread: float = 0.15) -> xr.Dataset:
    """Counts drawn from the conversion model, one segment's effect shifted by `outlier` on the log-odds scale."""
    rng = np.random.default_rng(seed)
    n = np.repeat(rng.integers(500, 5000, (segments, 1)), 2, axis=1)
    baseline, effect = rng.normal(-2, 0.3, segments), rng.normal(0.1, spread, segments)
    effect[3] += outlier
    events = rng.binomial(n, 1 / (1 + np.exp(-baseline[:, None] - np.column_stack([0 * effect, effect]))))
    return table({"n": n, "events": events}, arms=("c", "t"), control="c")


def test_checks_of_sound_data_speak_rarely_and_those_of_a_plain_outlier_often() -> None:
    sound = [hte.fit(binomial_cells(seed), "conversion", draws=400).predictive_checks() for seed in range(20)]
    marked = sum(int((found["verdict"] != "as expected").sum()) for found in sound)
    assert all(len(found) == 3 for found in sound)
    # Sixty checks at .01 each: more than 5 with probability 1e-4.
    assert marked <= 5
    # An effect ten between-segment SDs away; simulations find 98 in 100, fewer than 7 of 10 then has probability 1e-6.
    loud = [
        named(
            hte.fit(binomial_cells(seed, outlier=1.5), "conversion", draws=400).predictive_checks(),
            "furthest segment under",
        )
        for seed in range(10)
    ]
    assert sum("s3" in found["check"] and found["verdict"] != "as expected" for found in loud) >= 7  # type: ignore[index]


def test_complete_pooling_is_questioned_where_effects_differ() -> None:
    model = hte.read_model("conversion")
    complete = model.model_copy(
        update={"pooling": "complete", "effect": model.effect.model_copy(update={"between": None})}
    )
    complete = hte.Model.model_validate(complete.model_dump(exclude_none=True))
    verdicts = [
        named(hte.fit(binomial_cells(1, spread=spread), complete, draws=400).predictive_checks(), "scatter")["verdict"]  # type: ignore[index]
        for spread in (0.0, 0.5)
    ]
    assert verdicts == ["as expected", "more than the model expects"]
