"""Small example fits without MCMC: cells from a seed, draws from the one-way normal model given tau.

fit = example_fit(segments=6)
fit = example_fit(["<b>", "tablet"], family="mean", ok=False)
fit = example_fit(4, one_armed=(2,), plan=example_plan(title="E-mail test"))
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Protocol

import numpy as np
import xarray as xr

from bayes_hte.analysis.result import Fit
from bayes_hte.criticism.diagnostics import Diagnosis
from bayes_hte.inference.draws import Draws
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec import Model, Plan, cell_table
from bayes_hte.spec.family_rules import FamilyName
from bayes_hte.spec.fit_tree import record_inputs
from bayes_hte.spec.model import PoolingKind

CHAINS, DRAWS = 4, 250
NORMAL, HALF = {"dist": "Normal", "sigma": 1.0}, {"dist": "HalfNormal", "sigma": 0.5}

type Segments = int | Sequence[str] | Sequence[tuple[str, ...]]


def example_fit(
    segments: Segments = 6,
    family: FamilyName = "binomial",
    arms: Sequence[str] = ("control", "email"),
    dimensions: Sequence[str] = ("device",),
    seed: int = 0,
    ok: bool = True,
    plan: Plan | None = None,
    *,
    pooling: PoolingKind = "partial",
    effect: float | Sequence[float] = 0.4,
    units: int = 2000,
    known_n: bool = True,
    one_armed: Sequence[int] = (),
    outcome: str = "visit",
    source: str = "",
) -> Fit:
    """A `Fit` with everything a real one has, in a few milliseconds.

    Parameters
    ----------
    segments
        How many, or their levels: one text each, or one tuple per segment with a level per dimension.
    family, pooling
        As in a model file.
    arms
        The control first; family "estimate" has no control, so its first arm is left out.
    ok
        Whether the diagnosis says that the draws can be trusted.
    effect
        True effect on the link scale, for all segments or one per segment.
    units
        Units per cell of the largest segment; the others have fewer, down to a twentieth.
    known_n
        False leaves n out where the family allows (mean, estimate).
    one_armed
        Positions of segments in which the last arm was never seen.
    """
    rng = np.random.default_rng(seed)
    model = _model(family, pooling, known_n=known_n)
    truth = np.broadcast_to(np.asarray(effect, dtype=float), (len(_levels(segments, dimensions)),))
    there = np.ones((len(truth), len(arms)), dtype=bool)
    there[list(one_armed), -1] = False
    n = np.where(there, np.maximum(np.geomspace(units, units / 20, len(truth)), 2)[:, None], 0).astype(np.int64)
    data = _data(family, n, truth, rng)
    if not known_n and family in ("mean", "estimate"):
        data.pop("n", None)
    attrs = {"outcome": outcome, "control": "" if family == "estimate" else arms[0]}
    cells = _cells(data, _levels(segments, dimensions), arms[1:] if family == "estimate" else arms, dimensions, attrs)
    if source:
        cells.attrs["source"] = source
    return _fitted(cells, model, seed=seed, ok=ok, plan=plan)


def example_plan(**changes: object) -> Plan:
    """A plan with a title, a question and a unit; `changes` replace or add keys."""
    stated = {
        "title": "Does the e-mail bring people back?",
        "question": "Which devices should get the e-mail?",
        "model": "conversion",
        "data": {"outcome": "visit", "arm": "arm", "control": "control", "segments": ["device"]},
        "report": {"unit": "visit"},
    }
    return Plan.model_validate(stated | changes)


def failed_diagnosis() -> Diagnosis:
    """What `example_fit(ok=False)` carries."""
    return Diagnosis(False, ("The chains disagree: R-hat is 1.700.",), 1.7, 12.0, 11.0, 3, "effect_between", True)


def _model(family: FamilyName, pooling: PoolingKind, *, known_n: bool) -> Model:
    stated: dict[str, object] = {
        "family": family,
        "pooling": pooling,
        "effect": {"mean": NORMAL, **({"between": HALF} if pooling == "partial" else {})},
    }
    if family != "estimate":
        stated["baseline"] = {"mean": NORMAL | {"sigma": 2.5}, "between": HALF}
    if family == "normal":
        stated["nuisance"] = {"sigma": HALF | {"sigma": 2.0}}
    if family == "normal" or (family == "mean" and known_n):
        stated["units"] = "control_sd"
    return Model.model_validate(stated)


def _levels(segments: Segments, dimensions: Sequence[str]) -> list[tuple[str, ...]]:
    if not isinstance(segments, int):
        return [(level,) if isinstance(level, str) else tuple(level) for level in segments]
    second = ("new", "returning")
    width = len(second) if len(dimensions) > 1 else 1
    return [
        (f"{dimensions[0]} {i // width + 1}", *(second[i % width] for _ in dimensions[1:])) for i in range(segments)
    ]


def _data(family: FamilyName, n: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Cell statistics whose true effect is `truth` in every treated arm."""
    lift = truth[:, None] * (np.arange(n.shape[1]) > 0)
    safe = np.maximum(n, 1)
    if family == "binomial":
        return {"n": n, "events": rng.binomial(n, 1 / (1 + np.exp(1.5 - lift)))}
    sd = 3.0
    mean = np.where(n > 0, 10 + lift + sd * rng.standard_normal(n.shape) / np.sqrt(safe), np.nan)
    if family == "normal":
        return {"n": n, "mean": mean, "ss": np.where(n > 0, sd**2 * np.maximum(n - 1, 0), 0.0)}
    se = np.where(n > 0, sd / np.sqrt(safe), np.nan)
    if family == "mean":
        return {"n": n, "mean": mean, "se": se}
    return {"n": n[:, 1:], "estimate": (mean - 10)[:, 1:], "se": se[:, 1:]}


def _cells(
    data: dict[str, np.ndarray],
    levels: list[tuple[str, ...]],
    arms: Sequence[str],
    dimensions: Sequence[str],
    attrs: dict[str, str],
) -> xr.Dataset:
    by_dimension = zip(dimensions, zip(*levels, strict=True), strict=True)
    columns = {name: (("segment",), list(values)) for name, values in by_dimension}
    return cell_table.check_cell_table(
        xr.Dataset(
            {name: (("segment", "arm"), values) for name, values in data.items()},
            coords={"segment": [" · ".join(level) for level in levels], "arm": list(arms), **columns},
            attrs=attrs
            | {"dimensions": cell_table.encode_text_list(dimensions), "notes": cell_table.encode_text_list([])},
        )
    )


def _fitted(cells: xr.Dataset, model: Model, *, seed: int, ok: bool, plan: Plan | None) -> Fit:
    task = build_problem(cells, model)
    rng = np.random.default_rng(seed)
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((CHAINS, DRAWS), dtype=bool))})
    found = Diagnosis(True, (), 1.002, 910.0, 850.0, 0, "effect_between") if ok else failed_diagnosis()
    record = replace(
        record_inputs(cells, model, resolved_model=task.model, seed=seed),
        sampler="nuts (nutpie)",
        diagnosis=asdict(found),
    )
    if plan is not None:
        record = replace(record, plan=plan, plan_sha256="0" * 64, model_sha256="1" * 64)
    return Fit(Draws(_posterior(task, rng), stats).to_fit_tree(cells, record))


def _posterior(task: Problem, rng: np.random.Generator) -> xr.Dataset:
    """Effects given the raw estimates, a drawn common effect and a drawn tau: normal, segment by segment."""
    raw = task.family.estimate_raw_effects(task.cell_statistics, "link")
    y = raw["raw"].transpose("segment", "arm").values
    precision = np.where(np.isfinite(y), raw["raw_se"].transpose("segment", "arm").values, np.inf) ** -2.0
    y = np.nan_to_num(y)
    total = np.maximum(precision.sum(axis=0), 1e-6)
    centre = (precision * y).sum(axis=0) / total

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_normal((CHAINS, DRAWS, *shape))

    arms = y.shape[1]
    spread = np.std(y, axis=0) if len(y) > 1 else np.full(arms, 0.2)
    tau = np.abs(spread * (0.5 + 0.3 * noise(arms))) + 1e-3
    mean = centre + noise(arms) * np.sqrt(1 / total + tau**2 / len(y))
    effect = _effects(task, (y, precision), mean, tau, noise(*y.shape))
    draws: dict[str, tuple[tuple[str, ...], np.ndarray]] = {"effect": (("segment", "arm"), effect)}
    if task.model.pooling != "none":
        draws["effect_mean"] = (("arm",), mean)
    if task.model.pooling == "partial":
        draws["effect_between"] = (("arm",), tau)
    if task.model.baseline is not None:
        draws |= _baseline(task, noise)
    return xr.Dataset(
        {name: (("chain", "draw", *dims), values) for name, (dims, values) in draws.items()},
        coords=dict(task.coords) | {"chain": range(CHAINS), "draw": range(DRAWS)},
        attrs={"creation_library": "ArviZ", "sample_dims": ["chain", "draw"]},  # as samplers leave them
    )


def _effects(
    task: Problem, data: tuple[np.ndarray, np.ndarray], mean: np.ndarray, tau: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    y, precision = data
    if task.model.pooling == "complete":
        return np.broadcast_to(mean[:, :, None, :], noise.shape).copy()
    own = 1e-6 if task.model.pooling == "none" else tau[:, :, None, :] ** -2.0
    return (precision * y + own * mean[:, :, None, :]) / (precision + own) + noise / np.sqrt(precision + own)


def _baseline(task: Problem, noise: "Noise") -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    size = len(task.coords["segment"])
    binomial = task.family.name == "binomial"
    centre, width = (-1.5, 0.05) if binomial else (10.0, 0.2)
    draws = {
        "baseline": (("segment",), centre + width * noise(size)),
        "baseline_mean": ((), centre + width * noise()),
        "baseline_between": ((), np.abs(width * noise()) + 1e-3),
    }
    if task.model.nuisance is not None:
        draws["sigma"] = (("variant",), 3.0 + 0.02 * noise(len(task.coords["variant"])))
    return draws


class Noise(Protocol):
    """Standard normal draws with dims chain, draw and then `shape`."""

    def __call__(self, *shape: int) -> np.ndarray: ...
