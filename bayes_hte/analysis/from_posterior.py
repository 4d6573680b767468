"""`from_posterior`: make a fit of draws from a model of one's own, for the same tables, figures and report.

The posterior holds ``effect``, dims (chain, draw, segment, arm), or (chain, draw, segment) where one arm is treated,
and ``baseline``, dims (chain, draw, segment), both on the link scale. ``effect_mean`` and ``effect_between`` are used
where they exist: the centre and the SD of the distribution that segments come from.
"""

from dataclasses import asdict, replace
from typing import get_args

import numpy as np
import xarray as xr

from bayes_hte._support.validation import MIN_DRAWS, describe_type, describe_value
from bayes_hte.analysis.result import Fit
from bayes_hte.criticism import diagnostics
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.inference.draws import Draws
from bayes_hte.model.families import FAMILIES, Family
from bayes_hte.model.families.family import LinkName, StandIn
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import Model, cell_table
from bayes_hte.spec.cell_table import CellKind
from bayes_hte.spec.family_rules import FAMILY_RULES
from bayes_hte.spec.fit_tree import FROM_POSTERIOR_NAME, record_inputs

REPORTED_VARIABLES = ("effect", "baseline", "effect_mean", "effect_between")
SAMPLE_DIMS = ("chain", "draw")


def from_posterior(
    posterior: xr.DataTree | xr.Dataset,
    cells: xr.Dataset,
    *,
    link: LinkName = "identity",
    title: str = "",
    higher_is_better: bool | None = None,
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
    higher_is_better : bool, optional
        Whether an effect above 0 helps, as in `fit`.

    Returns
    -------
    Fit
        What needs the model itself (`hte.loso`, `hte.compare`, `Fit.sensitivity`, `Fit.given_tau`, prior and
        predictive draws) is not there.

    Raises
    ------
    ArgumentError
        If there is no such link, or the title is no text.
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
    cell_table.check_cell_table(cells)
    if not isinstance(title, str):
        raise ArgumentError(f"title is {describe_value(title)}; give the model's name as text")
    posterior_draws, sampler_statistics = _extract_draws(posterior)
    cells, family = _match_family(cells, link)
    posterior_draws = _align_with_cells(posterior_draws, cells)
    _check_draws(posterior_draws, family, link)
    # The caller may go on changing draws that are views of theirs; a fit does not change.
    posterior_draws, sampler_statistics = posterior_draws.copy(deep=True), sampler_statistics.copy(deep=True)
    model = _build_placeholder_model(posterior_draws, family, title)
    problem = build_problem(cells, model)
    record = replace(
        # Only `Fit.predict_new_segment` draws with the seed; the sampler's own is not known.
        record_inputs(cells, model, resolved_model=problem.model, seed=1),
        engine_name=FROM_POSTERIOR_NAME,
        engine_sentence="Drawn from a model of your own; bayes_hte has read the draws, not the model.",
        sampler=FROM_POSTERIOR_NAME,
        is_from_posterior=True,
        higher_is_better=higher_is_better,
    )
    # The diagnosis covers what is reported, not what else the model holds.
    reported_draws = posterior_draws[[name for name in REPORTED_VARIABLES if name in posterior_draws]]
    diagnosis = diagnostics.diagnose_draws(Draws(reported_draws, sampler_statistics).to_fit_tree(cells, record))
    complete_record = replace(record, diagnosis=asdict(diagnosis))
    return Fit(Draws(posterior_draws, sampler_statistics).to_fit_tree(cells, complete_record))


def _extract_draws(posterior_source: xr.DataTree | xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Extract the draws, and the sampler's statistics of itself: numbers only, for a file to hold them."""
    if isinstance(posterior_source, xr.Dataset):
        posterior_draws, sampler_statistics = posterior_source, xr.Dataset()
    elif not isinstance(posterior_source, xr.DataTree):
        raise DataError(
            f"posterior is {describe_type(posterior_source)}; give what pm.sample returned, an xarray DataTree or "
            "Dataset"
        )
    elif "posterior" in posterior_source.children:
        posterior_draws = posterior_source["posterior"].to_dataset()
        has_statistics = "sample_stats" in posterior_source.children
        sampler_statistics = posterior_source["sample_stats"].to_dataset() if has_statistics else xr.Dataset()
    else:
        raise DataError(
            f"the tree has no group posterior; its groups are {sorted(posterior_source.children)}: give what pm.sample "
            "returned"
        )
    if "effect" not in posterior_draws:
        raise DataError(
            f"the posterior has no variable effect; it has {sorted(map(str, posterior_draws.data_vars))[:10]}: name "
            'the effects pm.Deterministic("effect", ..., dims=("segment", "arm"))'
        )
    # NumPy's kinds of numbers: float, int, unsigned int and bool.
    numeric_variables = [name for name, draws in posterior_draws.data_vars.items() if draws.dtype.kind in "fiub"]
    kept_statistics = [name for name, values in sampler_statistics.data_vars.items() if values.dtype.kind in "fiub"]
    # PyMC ends the names of transformed variables with two underscores: nothing here needs these.
    kept_variables = [name for name in numeric_variables if not str(name).endswith("__")]
    return posterior_draws[kept_variables], sampler_statistics[kept_statistics]


def _match_family(cells: xr.Dataset, link: LinkName) -> tuple[xr.Dataset, Family]:
    """Find the family that stands in for draws on a link; return the cells with the statistics that it needs."""
    if link not in get_args(LinkName):
        raise ArgumentError(f"no link {link!r}; there are {', '.join(get_args(LinkName))}")
    cell_kind = cell_table.identify_kind(cells)
    matches = _list_stand_ins(cell_kind)
    for family, stand_in in matches:
        if stand_in.link == link:
            return stand_in.adapt_cells(cells), family
    if not matches:
        raise DataError(
            f"cells of kind {cell_kind} go with none of the links; reduce the outcome to means with "
            "bayes_hte.cells.from_summary, and put effects on the identity link"
        )
    supported_links = " or ".join(stand_in.link for _, stand_in in matches)
    raise DataError(
        f"cells of kind {cell_kind} go with link {supported_links}, not {link}: put effect and baseline on that "
        "scale, draw by draw"
    )


def _list_stand_ins(cell_kind: CellKind) -> list[tuple[Family, StandIn]]:
    """List families for one kind of cells, first those whose own kind it is."""
    ranked_matches = [
        (rank, family, stand_in)
        for family in FAMILIES.values()
        for rank, stand_in in enumerate(family.stand_ins)
        if stand_in.cell_kind == cell_kind
    ]
    return [(family, stand_in) for _, family, stand_in in sorted(ranked_matches, key=lambda match: match[0])]


def _align_with_cells(posterior_draws: xr.Dataset, cells: xr.Dataset) -> xr.Dataset:
    """Put segments and arms into the order of the cells, by label, and all dims into the usual order."""
    treated_arms = cell_table.list_treated_arms(cells)
    if "arm" not in posterior_draws["effect"].dims and len(treated_arms) > 1:
        raise DataError(
            f"effect has no dim arm, and the cells have {len(treated_arms)} treated arms {treated_arms}: add the dim "
            "arm"
        )
    labels_by_dim = {"segment": [str(label) for label in cells[cell_table.SEGMENT].values], "arm": treated_arms}
    for dim, cell_labels in labels_by_dim.items():
        if dim in posterior_draws.dims:
            posterior_draws = _order_by_labels(posterior_draws, dim, cell_labels)
    if "arm" not in posterior_draws.dims:
        # A scalar coordinate, left behind by `.sel(arm=…)`, would be in the way of the dim.
        posterior_draws = posterior_draws.drop_vars("arm", errors="ignore")
    for variable_name in ("effect", "effect_mean", "effect_between"):
        if variable_name in posterior_draws and "arm" not in posterior_draws[variable_name].dims:
            posterior_draws[variable_name] = posterior_draws[variable_name].expand_dims(arm=treated_arms)
    dim_order = ("chain", "draw", "segment", "arm")
    return posterior_draws.transpose(*dim_order, ..., missing_dims="ignore")


def _order_by_labels(posterior_draws: xr.Dataset, dim: str, cell_labels: list[str]) -> xr.Dataset:
    """Put a dim of the draws into the order of the cells' labels; raise DataError unless the labels are the same."""
    if dim not in posterior_draws.coords:
        raise DataError(f'dim {dim} of the draws has no labels: give the model coords={{"{dim}": {cell_labels[:3]}…}}')
    draw_labels = [str(label) for label in posterior_draws[dim].values]
    missing_labels = [label for label in cell_labels if label not in draw_labels]
    unknown_labels = [label for label in draw_labels if label not in cell_labels]
    if missing_labels or unknown_labels or len(set(draw_labels)) < len(draw_labels):
        raise DataError(
            f"the draws have {dim}s {draw_labels[:5]}, the cells {cell_labels[:5]}"
            + (f"; missing are {missing_labels[:5]}" if missing_labels else "")
            + (f"; not in the cells are {unknown_labels[:5]}" if unknown_labels else "")
            + f': give the model coords={{"{dim}": …}} with exactly the labels of the cells'
            + (", the control left out" if dim == "arm" else "")
        )
    return posterior_draws.assign_coords({dim: draw_labels}).sel({dim: cell_labels})


def _check_draws(posterior_draws: xr.Dataset, family: Family, link: LinkName) -> None:
    """Raise DataError unless dims, variables and number of draws are those that tables need."""
    dims_by_variable = {
        "effect": ("segment", "arm"),
        "baseline": ("segment",),
        "effect_mean": ("arm",),
        "effect_between": ("arm",),
    }
    if not family.has_baseline and "baseline" in posterior_draws:
        raise DataError("published estimates have no baseline: leave the variable baseline out of the posterior")
    if link != "identity" and "baseline" not in posterior_draws:
        raise DataError(
            f"effects on the {link} link need the control's level: add "
            'pm.Deterministic("baseline", ..., dims="segment") to the model'
        )
    for variable_name, expected_dims in dims_by_variable.items():
        if variable_name not in posterior_draws:
            continue
        if set(posterior_draws[variable_name].dims) != {*SAMPLE_DIMS, *expected_dims}:
            actual_dims = [str(dim) for dim in posterior_draws[variable_name].dims]
            required_dims = [*SAMPLE_DIMS, *expected_dims]
            raise DataError(
                f"{variable_name} has dims {actual_dims}, it needs {required_dims}: name them, or name the variable "
                "otherwise"
            )
        if not bool(np.isfinite(posterior_draws[variable_name]).all()):
            raise DataError(
                f"some draws of {variable_name} are not finite: find out which with "
                f"posterior[{variable_name!r}].isnull()"
            )
    if "effect_between" in posterior_draws and bool((posterior_draws["effect_between"] < 0).any()):
        raise DataError("effect_between is an SD, but some draws are below 0: name the variable otherwise")
    draw_count = posterior_draws.sizes["chain"] * posterior_draws.sizes["draw"]
    if draw_count < MIN_DRAWS:
        raise DataError(
            f"{draw_count} draws are too few to report a probability; the least is {MIN_DRAWS}: sample more"
        )


def _build_placeholder_model(posterior_draws: xr.Dataset, family: Family, title: str) -> Model:
    """Build a model that has what effects and tables read: its family, and whether effects are pooled."""
    # The model file demands priors; nothing here evaluates them.
    unused_prior, unused_sd_prior = {"dist": "Normal", "mu": 0.0, "sigma": 1.0}, {"dist": "HalfNormal", "sigma": 1.0}
    has_segment_distribution = "effect_mean" in posterior_draws and "effect_between" in posterior_draws
    model_content: dict[str, object] = {
        "family": family.name,
        "pooling": "partial" if has_segment_distribution else "none",
        "effect": {"mean": unused_prior, **({"between": unused_sd_prior} if has_segment_distribution else {})},
        "title": title or "A model of its own",
        "notes": "Only draws of this model were given: priors written here stand in for those that are not known.",
    }
    if FAMILY_RULES[family.name].allows_unit_variance:
        # What a model of the caller's own takes the units' variance to be is not known: each cell shows its own.
        model_content["unit_variance"] = "per_cell"
    if family.has_baseline:
        model_content["baseline"] = {"mean": unused_prior, "pooling": "none"}
    return Model.model_validate(model_content)
