"""What calibration simulates: one experiment per family and structure, and data drawn without the package's formulas.

Parameters come from the prior. Data come from them unit by unit where that is cheap: counts are mixed from a gamma
and a Poisson, ordered answers are latent logistic values, times to an event are exponential pieces that a censoring
time cuts off, revenue is a coin and a log-normal. So an error in a family's density cannot hide in its simulation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte import Model
from bayes_hte.model.families.two_part import AMOUNT_PREFIX, CHANCE_PREFIX
from bayes_hte.spec import cell_table
from bayes_hte.spec.family_rules import FamilyName

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Record = dict[str, Any]
Simulator = Callable[[xr.Dataset, xr.Dataset, np.random.Generator], xr.Dataset]
"""(cells without outcomes, one draw of all parameters, rng) -> cells."""

EDGES = np.array([0.0, 1.0, 3.0, 6.0])
"""Of the intervals of survival; censored at the end, or at a time that is uniform up to twice as late."""
LEVELS = np.array([1.0, 2.0, 3.0, 5.0])
"""Of ordered answers."""


@dataclass(frozen=True, slots=True)
class Design:
    """One experiment to simulate again and again.

    Attributes
    ----------
    what : str
        For people.
    model : Model
    cells : xarray.Dataset
        Sizes or standard errors; outcomes are placeholders.
    watched : tuple of str
        Segments whose effects and baselines are ranked.
    outcomes : callable
        Puts data into the cells.
    replications : int
        Enough to see an SD of effects that is off by a tenth, or as many as NUTS has time for.
    draws : int
        Of each posterior.
    engine : str
        ``exactly`` or ``by_nuts``.
    """

    what: str
    model: Model
    cells: xr.Dataset
    watched: tuple[str, ...]
    outcomes: Simulator
    replications: int = 800
    draws: int = 1000
    engine: Literal["exactly", "by_nuts"] = "exactly"


# -------------------------------------------------------------------------------------------------------- sizes

SIZES = np.array([[2, 3], [5, 4], [12, 15], [30, 25], [60, 80], [150, 150], [400, 380], [1200, 1300]])
"""From almost nothing to more than a thousand units."""
SMALL = np.array([[1, 1], [2, 3], [4, 1], [8, 9], [15, 12], [30, 40], [100, 90], [300, 310]])
THREE_ARMS = np.array(
    [[3, 2, 2], [8, 6, 7], [20, 18, 0], [40, 45, 38], [90, 80, 100], [200, 210, 190], [500, 480, 520], [900, 950, 940]]
)
"""One arm never reached the third segment."""
CROSSED = np.array([[4, 6, 25, 40], [60, 70, 120, 150], [300, 250, 500, 600]]).ravel()[:, None] * [1, 1]
"""Three devices × four plans."""
TWO, THREE = ("control", "treated"), ("control", "first", "second")
SOME = ("s1", "s4", "s8")


def normal(sigma: float, mu: float = 0.0) -> Record:
    """A prior as in a model file."""
    return {"dist": "Normal", "mu": mu, "sigma": sigma}


def half_normal(sigma: float) -> Record:
    """The same for an SD."""
    return {"dist": "HalfNormal", "sigma": sigma}


def beliefs(family: FamilyName, structure: Mapping[str, Any] | None = None, **tables: Any) -> Model:
    """Priors under which data are of the kind that experiments have."""
    effect = {"mean": normal(0.5), "between": half_normal(0.4)} | dict(structure or {})
    return Model.model_validate({"family": family, "effect": effect, **tables})


def table(
    data: Mapping[str, Any],
    arms: Sequence[str],
    control: str = "control",
    levels: Mapping[str, Sequence[str]] | None = None,
    **more: Any,
) -> xr.Dataset:
    """A checked cell table with segments s1, s2, …; `more` are further coordinates, and the horizon of survival."""
    labels = [f"s{place + 1}" for place in range(len(next(iter(data.values()))))]
    dimensions = levels or {"size": labels}
    placed = {name: ("segment", list(values)) for name, values in dimensions.items()}
    attrs = {"outcome": "y", "control": control, "dimensions": cell_table.encode_text_list(dimensions), "notes": "[]"}
    attrs |= {"horizon": more.pop("horizon")} if "horizon" in more else {}
    named = {name: (cell_table.CELL_VARIABLES[name].dims, np.asarray(values)) for name, values in data.items()}
    coords = {"segment": labels, "arm": list(arms), **placed, **more}
    return cell_table.check_cell_table(xr.Dataset(named, coords=coords, attrs=attrs))


def counts(n: Counts, arms: Sequence[str] = TWO, **more: Any) -> xr.Dataset:
    """Cells of a binomial outcome."""
    return table({"n": n, "events": np.minimum(n, 1)}, arms, **more)


def histogram(n: Counts, values: Array) -> xr.Dataset:
    """Cells of a histogram, with units at every value."""
    share = (n[..., None] + np.arange(len(values))) // len(values)
    return table({"n": n, "histogram": share}, TWO, value=values)


def survival(n: Counts) -> xr.Dataset:
    """Cells of times to an event."""
    at_risk = n[..., None] * np.diff(EDGES)
    coords: Record = {
        "interval": [f"{low:g}–{high:g}" for low, high in pairwise(EDGES)],
        "start": ("interval", EDGES[:-1]),
        "end": ("interval", EDGES[1:]),
    }
    return table({"n": n, "failures": (at_risk > 0).astype(int), "at_risk": at_risk}, TWO, horizon=4.0, **coords)


def revenue(n: Counts) -> xr.Dataset:
    """Cells of an outcome that is mostly 0."""
    some, zero = np.minimum(n, 2), np.zeros(n.shape)
    return table({"n": n, "mean": zero, "ss": zero, "positive": some, "log_mean": zero, "log_ss": 1.0 * some}, TWO)


# --------------------------------------------------------------------------------------------------- simulation


def predictor(drawn: xr.Dataset, part: str = "") -> Array:
    """Baseline plus effect, 0 for the control: (segment, variant)."""
    effect = drawn[f"{part}effect"].transpose("segment", "arm").values
    return np.asarray(drawn[f"{part}baseline"].values[:, None] + np.pad(effect, ((0, 0), (1, 0))))


def events(cells: xr.Dataset, drawn: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Coins."""
    return filled(cells, events=rng.binomial(cells["n"].values, 1 / (1 + np.exp(-predictor(drawn)))))


def rates(cells: xr.Dataset, drawn: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Events over an exposure."""
    return filled(cells, events=rng.poisson(cells["exposure"].values * np.exp(predictor(drawn))))


def means(cells: xr.Dataset, drawn: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Means with known standard errors; missing where these are."""
    return filled(cells, mean=predictor(drawn) + cells["se"].values * rng.standard_normal(cells["se"].shape))


def estimates(cells: xr.Dataset, drawn: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Published effects."""
    effect = drawn["effect"].transpose("segment", "arm").values
    return filled(cells, estimate=effect + cells["se"].values * rng.standard_normal(effect.shape))


def moments(cells: xr.Dataset, drawn: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Means and sums of squares of normal units."""
    eta, sigma = predictor(drawn), drawn["sigma"].values
    found = _per_cell(cells, lambda s, a, n: _mean_and_ss(rng.normal(eta[s, a], sigma[a], n)))
    return filled(cells, mean=found[..., 0], ss=found[..., 1])


def repeated(cells: xr.Dataset, drawn: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Counts of units whose rates vary as a gamma with mean m and shape alpha."""
    mean, alpha, n = np.exp(predictor(drawn)), drawn["alpha"].values, cells["n"].values
    units = {
        place: rng.poisson(rng.gamma(alpha[place[1]], mean[place] / alpha[place[1]], n[place]))
        for place in np.ndindex(n.shape)
    }
    # An experiment in which every unit has the same count still has a histogram of two values.
    values = np.unique(np.concatenate([[0, 1], *units.values()]))
    return with_histogram(cells, units, values.astype(float))


def answers(cells: xr.Dataset, drawn: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Ordered answers: into which gap between the cutpoints a logistic value around the predictor falls."""
    eta, cutpoints, n = predictor(drawn), drawn["cutpoints"].values, cells["n"].values
    units = {
        place: LEVELS[np.searchsorted(cutpoints, eta[place] + rng.logistic(size=n[place]))]
        for place in np.ndindex(n.shape)
    }
    return with_histogram(cells, units, LEVELS)


def times(cells: xr.Dataset, drawn: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Failures and time at risk of units whose hazard is constant within intervals."""
    start, end, last = EDGES[:-1], EDGES[1:], EDGES[-1]
    relative = np.exp(np.pad(drawn["hazards"].values, (1, 0)))
    hazard = np.exp(predictor(drawn))[..., None] * relative

    def observed(s: int, a: int, n: int) -> Array:
        cumulative = np.concatenate([[0.0], np.cumsum(hazard[s, a] * (end - start))])
        event = np.interp(rng.exponential(size=n), cumulative, EDGES, right=np.inf)
        censored = np.minimum(rng.uniform(0, 2 * last, n), last)
        seen = np.minimum(event, censored)[:, None]
        failed = (event <= censored)[:, None] & (seen > start) & (seen <= end)
        return np.array([failed.sum(0), np.clip(seen - start, 0.0, end - start).sum(0)])

    found = _per_cell(cells, observed)
    return filled(cells, failures=found[..., 0, :].astype(int), at_risk=found[..., 1, :])


def purchases(cells: xr.Dataset, drawn: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """Units that buy or not, and log-normal amounts of those who do."""
    chance, amount = 1 / (1 + np.exp(-predictor(drawn, CHANCE_PREFIX))), predictor(drawn, AMOUNT_PREFIX)
    sigma = drawn["sigma"].values

    def observed(s: int, a: int, n: int) -> Array:
        bought = rng.random(n) < chance[s, a]
        logs = amount[s, a] + sigma[a] * rng.standard_normal(bought.sum())
        spent = np.concatenate([np.exp(logs), np.zeros(n - len(logs))])
        return np.array([*_mean_and_ss(spent), len(logs), *_mean_and_ss(logs)])

    found = _per_cell(cells, observed)
    names = ("mean", "ss", "positive", "log_mean", "log_ss")
    data = {name: found[..., place] for place, name in enumerate(names)}
    return filled(cells, **data | {"positive": data["positive"].astype(int)})


def _per_cell(cells: xr.Dataset, simulated: Callable[[int, int, int], Any]) -> Array:
    """(segment, variant, …) from (segment, variant, number of units)."""
    n = cells["n"].values
    return np.array(
        [[simulated(s, a, int(n[s, a])) for a in range(n.shape[1])] for s in range(n.shape[0])], dtype=float
    )


def _mean_and_ss(values: Array) -> tuple[float, float]:
    """Missing and 0 of no values; the sum of squares of one is exactly 0."""
    if len(values) == 0:
        return np.nan, 0.0
    return float(values.mean()), float(((values - values.mean()) ** 2).sum()) if len(values) > 1 else 0.0


def filled(cells: xr.Dataset, **data: NDArray[Any]) -> xr.Dataset:
    """The cells with outcomes in place of the placeholders."""
    return cells.assign({name: (cells[name].dims, values) for name, values in data.items()})


def with_histogram(cells: xr.Dataset, units: Mapping[tuple[int, ...], NDArray[Any]], values: Array) -> xr.Dataset:
    """The cells with the units' outcomes counted."""
    n = cells["n"].values
    counted = np.zeros((*n.shape, len(values)), dtype=np.int64)
    for place, each in units.items():
        counted[place] = np.bincount(np.searchsorted(values, each), minlength=len(values))
    bare = cells.drop_vars(["histogram", "value"])
    return bare.assign(histogram=(("segment", "arm", "value"), counted)).assign_coords(value=values)


# ------------------------------------------------------------------------------------------------------ designs

POOLED = {"mean": normal(0.7, -2.0), "between": half_normal(0.5)}
"""Baselines on the scale of log-odds and logarithms,"""
METRIC = {"mean": normal(1.0), "between": half_normal(0.5)}
"""and of measurements."""


def families() -> dict[str, Design]:
    """One way of pooling, every family; tiny segments in all of them."""
    se = 2.0 / np.sqrt(SIZES)
    unseen = np.where(np.arange(8)[:, None] * [1, 1] == [2, -1], np.nan, 1.0)  # nobody was a control in s3
    exposure = SMALL * np.array([2.5, 3.5])
    free = {"pooling": "none", "mean": normal(1.0, -2.0)}
    amounts = {"effect": {"mean": normal(0.3), "between": half_normal(0.25)}, "baseline": METRIC}
    often = {"mean": normal(0.7), "between": half_normal(0.5)}
    return {
        "binomial": Design(
            "2 arms, 2 to 1,300 units per cell", beliefs("binomial", baseline=POOLED), counts(SIZES), SOME, events,
            replications=2000, draws=4000,
        ),
        "binomial, free baselines": Design(
            "3 arms, baselines not pooled, one empty cell",
            beliefs("binomial", baseline=free), counts(THREE_ARMS, THREE), ("s1", "s3", "s8"), events,
        ),
        "normal": Design(
            "2 arms, 1 to 310 units per cell, an SD per arm",
            beliefs("normal", baseline=METRIC, nuisance={"sigma": half_normal(2.0)}),
            table({"n": SMALL, "mean": np.zeros(SMALL.shape), "ss": np.maximum(SMALL - 1.0, 0.0)}, TWO), SOME, moments,
            replications=1000,
        ),
        "mean": Design(
            "2 arms, standard errors from 0.06 to 1.4, one empty cell", beliefs("mean", baseline=METRIC),
            table({"mean": 0.0 * unseen, "se": se * unseen}, TWO), ("s1", "s3", "s8"), means, replications=1000,
        ),
        "estimate": Design(
            "8 estimates, standard errors from 0.08 to 2", beliefs("estimate"),
            table({"estimate": np.zeros((8, 1)), "se": 2.0 * se[:, :1] / np.sqrt(2)}, ("treated",), control=""),
            SOME, estimates, replications=2000, draws=4000,
        ),
        "poisson": Design(
            "2 arms, exposures from 2.5 to 1,085", beliefs("poisson", baseline=POOLED),
            table({"events": np.ones(SMALL.shape, dtype=int), "exposure": exposure}, TWO), SOME, rates,
        ),
        "negative binomial": Design(
            "2 arms, 1 to 310 units per cell, a dispersion per arm",
            beliefs("negative_binomial", baseline=often, nuisance={"alpha": {"dist": "LogNormal", "sigma": 0.7}}),
            histogram(SMALL, np.array([0.0, 1.0])), SOME, repeated,
        ),
        "ordinal": Design(
            "2 arms, 1 to 310 units per cell, 4 levels",
            beliefs("ordinal", baseline={"between": half_normal(0.5)}, nuisance={"cutpoints": normal(1.5)}),
            histogram(SMALL, LEVELS), SOME, answers,
        ),
        "survival": Design(
            "2 arms, 1 to 310 units per cell, 3 intervals, half of the units censored",
            beliefs("piecewise_exponential", baseline=POOLED, nuisance={"hazards": normal(0.5)}),
            survival(SMALL), SOME, times,
        ),
        "two parts": Design(
            "2 arms, 2 to 1,300 units per cell, one in eight with an outcome above 0",
            beliefs("two_part", baseline=POOLED, amount=amounts, nuisance={"sigma": half_normal(1.0)}),
            revenue(SIZES), SOME, purchases,
        ),
    }  # fmt: skip


def structures() -> dict[str, Design]:
    """Every way in which effects can be pooled other than around one mean."""
    known = np.array([[35.0, 61, 48, 22, 55, 41, 30, 67], [1.5, 0.2, 3.0, 0.7, 8.0, 2.2, 0.1, 1.0]]).T
    plans = ["free", "paid"] * 4
    se = 2.0 / np.sqrt(np.where(THREE_ARMS > 0, THREE_ARMS, np.nan))
    crossed = {"device": [f"d{i}" for i in (1, 2, 3) for _ in range(4)], "plan": [f"p{i}" for i in (1, 2, 3, 4)] * 3}
    terms = {"by": ["*"], "by_between": half_normal(0.4), "between": half_normal(0.2)}
    covariate = {"covariates": ["age", "tenure"], "slope": normal(0.4)}
    strata = {"strata": "plan", "shared_between": True}
    return {
        "heavy tails": Design(
            "binomial, Student's t with 4 degrees of freedom",
            beliefs("binomial", {"shape": "student_t", "nu": 4.0}, baseline=POOLED), counts(SIZES), SOME, events,
        ),
        "correlation": Design(
            "binomial, effects correlated with baselines",
            beliefs("binomial", {"correlation": {"dist": "LKJ", "eta": 2.0}}, baseline=POOLED),
            counts(SIZES), SOME, events,
        ),
        "covariate": Design(
            "binomial, effects depend on two covariates", beliefs("binomial", covariate, baseline=POOLED),
            counts(SIZES, covariate=["age", "tenure"]).assign(covariates=(("segment", "covariate"), known)),
            SOME, events,
        ),
        "strata": Design(
            "mean, 3 arms with one SD, which differs between two strata", beliefs("mean", strata, baseline=METRIC),
            table({"mean": 0.0 * se, "se": se}, THREE, levels={"plan": plans, "size": list("abcdefgh")}),
            ("s1", "s3", "s8"), means,
        ),
        "crossed dimensions": Design(
            "binomial, 3 devices × 4 plans, each level with an effect",
            beliefs("binomial", terms, baseline=POOLED | {"by": ["*"], "by_between": half_normal(0.5)}),
            counts(CROSSED, levels=crossed), ("s1", "s6", "s12"), events, replications=100, engine="by_nuts",
        ),
    }  # fmt: skip


DESIGNS: Mapping[str, Design] = families() | structures()


def structure(model: Model) -> tuple[str, ...]:
    """What a model says of effects beyond one mean and one SD per arm, in words of the model file."""
    effect = model.effect
    said = {
        f"pooling {model.pooling}": model.pooling != "partial",
        "by": bool(effect.by),
        effect.shape: effect.shape != "normal",
        "covariates": bool(effect.covariates),
        "correlation": effect.correlation is not None,
        "strata": effect.strata is not None,
        "shared_between": effect.shared_between,
    }
    return tuple(name for name, there in said.items() if there)


def kind(model: Model) -> tuple[str, ...]:
    """Family and structure: what a design stands for."""
    return (model.family, *structure(model))
