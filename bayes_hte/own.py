"""Draws from a model of one's own: the same tables, figures and report as for the models shipped here.

The posterior holds ``effect``, dims (chain, draw, segment, arm), or (chain, draw, segment) where one arm is treated,
and ``baseline``, dims (chain, draw, segment), both on the link scale. ``effect_mean`` and ``effect_between`` are used
where they exist: the centre and the SD of the distribution that segments come from.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Final, Literal, get_args

import numpy as np
import xarray as xr

from bayes_hte import diagnose, schema
from bayes_hte.asked import described, type_of
from bayes_hte.drawn import Drawn
from bayes_hte.errors import DataError
from bayes_hte.model import problem
from bayes_hte.posterior import core, provenance
from bayes_hte.result import FORMAT, Fit
from bayes_hte.schema import Kind
from bayes_hte.spec import Model
from bayes_hte.spec.model import FamilyName

Link = Literal["identity", "log", "logit"]
MIN_DRAWS = 400
"""What the diagnosis asks for if every draw were independent."""
FAMILIES: Final[Mapping[tuple[Kind, Link], FamilyName]] = MappingProxyType(
    {
        ("counts", "logit"): "binomial",
        ("counts", "identity"): "mean",
        ("moments", "identity"): "mean",
        ("moments", "logit"): "binomial",
        ("moments", "log"): "poisson",
        ("means", "identity"): "mean",
        ("rates", "log"): "poisson",
        ("estimates", "identity"): "estimate",
    }
)
"""Whose raw estimates stand beside the draws, and whose inverse link leads to the absolute scale."""
REPORTED = ("effect", "baseline", "effect_mean", "effect_between")
SAMPLE = ("chain", "draw")
NOT_OURS = ("pareto_k", "effective_points", "quadrature_error")
"""The exact engine's certificate: statistics of these names would be taken for it."""


def from_posterior(
    posterior: xr.DataTree | xr.Dataset, cells: xr.Dataset, *, link: Link = "identity", title: str = ""
) -> Fit:
    """Take draws of effects from any model: tables, figures and report as for a model shipped here.

    Parameters
    ----------
    posterior : xarray.DataTree or xarray.Dataset
        What `pymc.sample` returns, or its group ``posterior``. It holds ``effect`` with dims (chain, draw, segment,
        arm), without arm where one arm is treated, and, unless `link` is ``identity``, ``baseline`` with dims (chain,
        draw, segment): both on the link scale, segments and arms labelled as in `cells`. Where ``effect_mean`` and
        ``effect_between`` exist, dims (chain, draw) or (chain, draw, arm), they are the distribution of segments:
        the pooling factor and `Fit.predict_new_segment` need both.
    cells : xarray.Dataset
        The data behind it, from `bayes_hte.cells`: units, raw estimates and shares of the population.
    link : {"identity", "log", "logit"}
        The scale of effect and baseline: the outcome itself, its logarithm, or log-odds.
    title : str
        What the model is called in the report.

    Returns
    -------
    Fit
        What needs the model itself (`Fit.loso`, `Fit.compare`, `Fit.sensitivity`, `Fit.given_tau`, prior and
        predictive draws) is not there.

    Raises
    ------
    DataError
        If draws are missing, not finite or too few, or their dims and labels are not those of the cells.

    Notes
    -----
    R-hat and effective sample sizes are computed for what is reported; divergences are read from ``sample_stats``,
    where there is one. ArviZ's tools for one's own model are not replaced: call them before.

    Examples
    --------
    >>> import numpy as np, pandas as pd, xarray as xr, bayes_hte as hte
    >>> schools = pd.DataFrame({"school": ["A", "B"], "y": [28.0, 8.0], "se": [15.0, 10.0]})
    >>> cells = hte.cells.from_estimates(schools, segments=["school"], estimate="y", se="se")
    >>> draws = np.random.default_rng(1).normal([14.0, 8.0], [9.0, 7.0], (4, 1000, 2))
    >>> posterior = xr.Dataset({"effect": (("chain", "draw", "segment"), draws)}, {"segment": ["A", "B"]})
    >>> fit = hte.from_posterior(posterior, cells)
    >>> [f"{p:.2f}" for p in fit.table()["p_positive"]]
    ['0.94', '0.87']
    """
    schema.check(cells)
    if not isinstance(title, str):
        raise DataError(f"title is {described(title)}; give the model's name as text")
    draws, stats = _groups(posterior)
    cells, family = _outcome(cells, link)
    draws = _labelled(draws, cells)
    _check(draws, family, link)
    model = _stand_in(draws, family, title)
    task = problem(cells, model)
    tree = core(cells, Drawn(draws, stats))
    tree.attrs |= {
        "format": FORMAT,
        "own": "1",
        "model": model.model_dump_json(exclude_none=True),
        "engine": "Drawn from a model of your own; bayes_hte has read the draws, not the model.",
        "sampler": "own",
        **provenance(task, cells, seed=1),
    }
    judged = xr.DataTree.from_dict(
        {"posterior": draws[[name for name in REPORTED if name in draws]], "sample_stats": stats, "cells": cells}
    )
    judged.attrs |= tree.attrs
    tree.attrs["diagnosis"] = json.dumps(asdict(diagnose.diagnose(judged)))
    return Fit(tree)


def _groups(given: xr.DataTree | xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The draws, and what the sampler says of itself: numbers only, for a file to hold them."""
    if isinstance(given, xr.Dataset):
        posterior, stats = given, xr.Dataset()
    elif not isinstance(given, xr.DataTree):
        raise DataError(f"posterior is {type_of(given)}; give what pm.sample returned, an xarray DataTree or Dataset")
    elif "posterior" in given.children:
        posterior = given["posterior"].to_dataset()
        stats = given["sample_stats"].to_dataset() if "sample_stats" in given.children else xr.Dataset()
    else:
        raise DataError(
            f"the tree has no group posterior; its groups are {sorted(given.children)}: give what pm.sample returned"
        )
    if "effect" not in posterior:
        raise DataError(
            f"the posterior has no variable effect; it has {sorted(map(str, posterior.data_vars))[:10]}: name the "
            'effects pm.Deterministic("effect", ..., dims=("segment", "arm"))'
        )
    kept = [name for name, values in posterior.data_vars.items() if values.dtype.kind in "fiub"]
    known = [name for name, values in stats.data_vars.items() if values.dtype.kind in "fiub" and name not in NOT_OURS]
    return posterior[[name for name in kept if not str(name).endswith("__")]], stats[known]


def _outcome(cells: xr.Dataset, link: Link) -> tuple[xr.Dataset, FamilyName]:
    """The family whose raw estimates and link go with these cells; counts on the identity link become means."""
    if link not in get_args(Link):
        raise DataError(f"no link {link!r}; there are {', '.join(get_args(Link))}")
    kind = schema.kind_of(cells)
    family = FAMILIES.get((kind, link))
    if family is None:
        links = [each for known, each in FAMILIES if known == kind]
        if not links:
            raise DataError(
                f"cells of kind {kind} go with none of the links; reduce the outcome to means with "
                "bayes_hte.cells.from_summary, and put effects on the identity link"
            )
        raise DataError(
            f"cells of kind {kind} go with link {' or '.join(links)}, not {link}: put effect and baseline on that "
            "scale, draw by draw"
        )
    if kind == "counts" and family == "mean":
        rate = cells["events"] / cells["n"].where(cells["n"] > 0)
        cells = cells.assign(mean=rate, ss=(cells["events"] * (1 - rate)).fillna(0.0))
    return cells, family


def _labelled(posterior: xr.Dataset, cells: xr.Dataset) -> xr.Dataset:
    """Segments and arms in the order of the cells, by label; every variable in its place."""
    arms = schema.treated_arms(cells)
    if "arm" not in posterior["effect"].dims and len(arms) > 1:
        raise DataError(f"effect has no dim arm, and the cells have {len(arms)} treated arms {arms}: add the dim arm")
    wanted = {"segment": [str(label) for label in cells[schema.SEGMENT].values], "arm": arms}
    for dim, labels in wanted.items():
        if dim in posterior.dims:
            posterior = _ordered(posterior, dim, labels)
    if "arm" not in posterior.dims:
        posterior = posterior.drop_vars("arm", errors="ignore")
    for name in ("effect", "effect_mean", "effect_between"):
        if name in posterior and "arm" not in posterior[name].dims:
            posterior[name] = posterior[name].expand_dims(arm=arms)
    order = ("chain", "draw", "segment", "arm")
    return posterior.transpose(*order, ..., missing_dims="ignore")


def _ordered(posterior: xr.Dataset, dim: str, labels: list[str]) -> xr.Dataset:
    if dim not in posterior.coords:
        raise DataError(f'dim {dim} of the draws has no labels: give the model coords={{"{dim}": {labels[:3]}…}}')
    there = [str(label) for label in posterior[dim].values]
    missing, unknown = [x for x in labels if x not in there], [x for x in there if x not in labels]
    if missing or unknown or len(set(there)) < len(there):
        raise DataError(
            f"the draws have {dim}s {there[:5]}, the cells {labels[:5]}"
            + (f"; missing are {missing[:5]}" if missing else "")
            + (f"; not in the cells are {unknown[:5]}" if unknown else "")
            + f': give the model coords={{"{dim}": …}} with exactly the labels of the cells'
            + (", the control left out" if dim == "arm" else "")
        )
    return posterior.assign_coords({dim: there}).sel({dim: labels})


def _check(draws: xr.Dataset, family: FamilyName, link: Link) -> None:
    dims = {"effect": ("segment", "arm"), "baseline": ("segment",), "effect_mean": ("arm",), "effect_between": ("arm",)}
    if family == "estimate" and "baseline" in draws:
        raise DataError("published estimates have no baseline: leave the variable baseline out of the posterior")
    if link != "identity" and "baseline" not in draws:
        raise DataError(
            f"effects on the {link} link need the control's level: add "
            'pm.Deterministic("baseline", ..., dims="segment") to the model'
        )
    for name, expected in dims.items():
        if name not in draws:
            continue
        if set(draws[name].dims) != {*SAMPLE, *expected}:
            found, asked = [str(dim) for dim in draws[name].dims], [*SAMPLE, *expected]
            raise DataError(f"{name} has dims {found}, it needs {asked}: name them, or name the variable otherwise")
        if not bool(np.isfinite(draws[name]).all()):
            raise DataError(f"some draws of {name} are not finite: find out which with posterior[{name!r}].isnull()")
    if "effect_between" in draws and bool((draws["effect_between"] < 0).any()):
        raise DataError("effect_between is an SD, but some draws are below 0: name the variable otherwise")
    size = draws.sizes["chain"] * draws.sizes["draw"]
    if size < MIN_DRAWS:
        raise DataError(f"{size} draws are too few to report a probability; the least is {MIN_DRAWS}: sample more")


def _stand_in(draws: xr.Dataset, family: FamilyName, title: str) -> Model:
    """What effects and tables ask of a model: family, and whether segments have a distribution; no prior is used."""
    unused, scale = {"dist": "Normal", "mu": 0.0, "sigma": 1.0}, {"dist": "HalfNormal", "sigma": 1.0}
    pooled = "effect_mean" in draws and "effect_between" in draws
    stated: dict[str, object] = {
        "family": family,
        "pooling": "partial" if pooled else "none",
        "effect": {"mean": unused, **({"between": scale} if pooled else {})},
        "title": title or "A model of its own",
        "notes": "Only draws of this model were given: priors written here stand in for those that are not known.",
    }
    if family != "estimate":
        stated["baseline"] = {"mean": unused, "pooling": "none"}
    return Model.model_validate(stated)
