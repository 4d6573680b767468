"""Value treating one unit of each group by joint draws: benefit, worth in money, cost taken off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import check_number, describe_value, list_mapping_items, to_float
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR, format_level
from bayes_hte.decisions.policy.choice import GROUP, ChoiceProblem
from bayes_hte.decisions.policy.population import StatedPopulation, describe_stated_population, read_population
from bayes_hte.errors import ArgumentError
from bayes_hte.estimands.effects import compute_effects, estimate_without_pooling
from bayes_hte.spec import Rule, cell_table
from bayes_hte.spec.cell_table import ARM, SEGMENT
from bayes_hte.spec.fit_tree import get_fitted_cells, get_plan, is_higher_better

VALUED_SCALE: Final = "absolute"
"""Gains add up over people only in units of the outcome: ratios and logarithms do not."""


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """Terms on which policies are compared.

    Attributes
    ----------
    population : mapping or pandas.DataFrame, optional
        Whose gain counts, as `read_population` takes it; by default the experiment's own population.
    budget : float
        The largest share of the population that may be treated.
    choice_dimensions : tuple of str
        Dimensions whose levels are treated alike; by default all, which is every segment for itself.
    cost_by_arm : mapping, optional
        Cost of one treated unit by arm, in place of the rule's for all.
    """

    population: StatedPopulation | None = None
    budget: float = 1.0
    choice_dimensions: tuple[str, ...] = ()
    cost_by_arm: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PricedChoice:
    """A choice problem with what its numbers are, and the same without pooling and without costs.

    Attributes
    ----------
    problem : ChoiceProblem
        In money where a value is stated, else in units of the outcome; above 0 is better.
    benefit_problem : ChoiceProblem
        The benefit alone: in units of the outcome, before costs.
    raw_net_gain : xarray.DataArray
        Dims (group, arm): the net gain by each segment's own raw estimate; NaN where there is none.
    group_levels : pandas.DataFrame
        A row per group, a column per dimension of the choice.
    averaged_dimensions : tuple of str
        Dimensions over which groups are averaged with the population's shares.
    population_phrase, gain_unit : str
        Whose gain it is, and in what.
    is_money : bool
        Whether gains are in money.
    """

    problem: ChoiceProblem
    benefit_problem: ChoiceProblem
    raw_net_gain: xr.DataArray
    group_levels: pd.DataFrame
    averaged_dimensions: tuple[str, ...]
    population_phrase: str
    gain_unit: str
    is_money: bool

    @property
    def group_role(self) -> str:
        """What groups are called: segments, or levels of a dimension."""
        if not self.averaged_dimensions:
            return "segments"
        return f"levels of {LEVEL_SEPARATOR.join(map(str, self.group_levels.columns))}"


def check_terms(
    fit_tree: xr.DataTree,
    population: StatedPopulation | None = None,
    budget: object = None,
    by: object = None,
    costs: object = None,
) -> PolicyTerms:
    """Check the terms that a caller states.

    Raises
    ------
    ArgumentError
        If the budget is no share, a dimension or an arm is unknown, or a cost is no number.
    """
    cells = get_fitted_cells(fit_tree)
    budget_share = 1.0 if budget is None else to_float(budget)
    # 30 means 30 % to some and everybody to others: only a share says which.
    if budget_share is None or not 0 < budget_share <= 1:
        raise ArgumentError(
            f"budget is the largest share of the population that may be treated, such as 0.3 for 30 %, not "
            f"{describe_value(budget)}"
        )
    return PolicyTerms(population, budget_share, _check_choice_dimensions(cells, by), _check_costs(cells, costs))


def _check_choice_dimensions(cells: xr.Dataset, by: object) -> tuple[str, ...]:
    """Check the dimensions whose levels are treated alike; none stands for all."""
    if by is None:
        return ()
    known_dimensions = cell_table.list_dimensions(cells)
    stated_names = [by] if isinstance(by, str) else list(by) if isinstance(by, list | tuple) else [by]
    for name in stated_names:
        if name not in known_dimensions:
            raise ArgumentError(
                f"by names the dimension {describe_value(name)}; there are {quote_names(known_dimensions)}"
            )
    if not stated_names:
        raise ArgumentError(f"by is empty; name a dimension, such as {known_dimensions[0]!r}, or leave it out")
    # In the order of the cells, each once.
    return tuple(name for name in known_dimensions if name in stated_names)


def _check_costs(cells: xr.Dataset, costs: object) -> dict[str, float] | None:
    """Check costs by arm: finite numbers, one for every treated arm."""
    if costs is None:
        return None
    treated_arms = cell_table.list_treated_arms(cells)
    cost_by_arm = {
        format_level(arm): check_number(cost, f"the cost of {arm!r}")
        for arm, cost in list_mapping_items("costs", costs, str(dict.fromkeys(treated_arms[:2], 0.1)))
    }
    if set(cost_by_arm) != set(treated_arms) or not np.isfinite(list(cost_by_arm.values())).all():
        raise ArgumentError(
            f"costs are {describe_value(cost_by_arm)}; give one finite number for each of the arms "
            f"{quote_names(treated_arms)}"
        )
    return cost_by_arm


def price_choice(fit_tree: xr.DataTree, rule: Rule, terms: PolicyTerms) -> PricedChoice:
    """Price treating one unit of each group with each arm, draw by draw.

    Parameters
    ----------
    fit_tree : xarray.DataTree
    rule : Rule
        Its `value` and `cost`.
    terms : PolicyTerms

    Raises
    ------
    ArgumentError
        If the population makes no sense.
    """
    cells = get_fitted_cells(fit_tree)
    segment_shares = read_population(cells, terms.population)
    # Benefit is the effect in the direction that is better: a lower-is-better outcome gains by falling.
    benefit_sign = 1.0 if is_higher_better(fit_tree) else -1.0
    benefit = benefit_sign * compute_effects(fit_tree, VALUED_SCALE)
    raw_benefit = benefit_sign * estimate_without_pooling(fit_tree, VALUED_SCALE)["raw"]
    groups = SegmentGroups.collect(cells, terms.choice_dimensions)
    group_benefit, raw_group_benefit = (
        groups.average_members(values.reset_coords(drop=True), segment_shares) for values in (benefit, raw_benefit)
    )
    benefit_problem = ChoiceProblem(group_benefit, groups.sum_members(segment_shares), terms.budget)
    arm_costs = [(terms.cost_by_arm or {}).get(str(arm), rule.cost) for arm in benefit[ARM].values]
    costs = xr.DataArray(arm_costs, dims=ARM, coords={ARM: benefit[ARM].values})
    # A cost by arm goes before the rule's, which knows no arms.
    # net gain = value · benefit − cost
    value = 1.0 if rule.value is None else rule.value
    choice_dimensions = terms.choice_dimensions or tuple(cell_table.list_dimensions(cells))
    return PricedChoice(
        replace(benefit_problem, net_gain=value * group_benefit - costs),
        benefit_problem,
        value * raw_group_benefit - costs,
        groups.list_levels(cells, choice_dimensions),
        tuple(name for name in cell_table.list_dimensions(cells) if name not in choice_dimensions),
        describe_stated_population(cells, terms.population),
        _name_gain_unit(fit_tree, rule),
        rule.value is not None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class SegmentGroups:
    """Segments that a policy treats alike.

    Attributes
    ----------
    group_labels : list of str
        In the order of the data.
    group_by_segment : xarray.DataArray
        Dims (segment,): the label of each segment's group.
    """

    group_labels: list[str]
    group_by_segment: xr.DataArray

    @classmethod
    def collect(cls, cells: xr.Dataset, choice_dimensions: Sequence[str]) -> "SegmentGroups":
        """Collect the segments that share the levels of some dimensions; without any, each stands for itself."""
        segment_labels = [str(label) for label in cells[SEGMENT].values]
        level_columns = [cells[name].values.astype(str) for name in choice_dimensions]
        label_by_segment = [LEVEL_SEPARATOR.join(levels) for levels in zip(*level_columns, strict=True)]
        label_by_segment = label_by_segment or segment_labels
        return cls(
            list(dict.fromkeys(label_by_segment)),
            xr.DataArray(label_by_segment, dims=SEGMENT, coords={SEGMENT: segment_labels}, name=GROUP),
        )

    @property
    def is_every_segment(self) -> bool:
        """Whether each segment stands for itself, under its own label."""
        return bool(self.group_labels == self.group_by_segment[SEGMENT].values.tolist())

    def sum_members(self, segment_values: xr.DataArray) -> xr.DataArray:
        """Sum values over the segments of each group; the dim segment becomes group. NaN where one of them is."""
        # Grouping thousands of draws by label would take longer than all else.
        if self.is_every_segment:
            return segment_values.rename({SEGMENT: GROUP})
        group_sums = segment_values.groupby(self.group_by_segment).sum(SEGMENT, skipna=False)
        return group_sums.sel({GROUP: self.group_labels})

    def average_members(self, segment_values: xr.DataArray, segment_shares: xr.DataArray) -> xr.DataArray:
        """Average values over the segments of each group with their shares; alike where nobody is in the group."""
        if self.is_every_segment:
            return segment_values.rename({SEGMENT: GROUP})
        group_totals = self.sum_members(segment_shares)
        segment_totals = group_totals.sel({GROUP: self.group_by_segment}).drop_vars(GROUP)
        member_counts = self.sum_members(xr.ones_like(segment_shares)).sel({GROUP: self.group_by_segment})
        # weight of s in g = share_s / Σ_{t in g} share_t
        inner_shares = segment_shares / segment_totals.where(segment_totals > 0)
        member_weights = inner_shares.where(segment_totals > 0, 1 / member_counts).drop_vars(GROUP, errors="ignore")
        # A segment without anybody adds nothing, not even that nothing is known of it.
        return self.sum_members((segment_values * member_weights).where(member_weights > 0, 0.0))

    def list_levels(self, cells: xr.Dataset, choice_dimensions: Sequence[str]) -> pd.DataFrame:
        """List the levels of each group, of its first segment: all its segments share them."""
        labels = self.group_by_segment.values.tolist()
        first_segments = [labels.index(label) for label in self.group_labels]
        return pd.DataFrame({name: cells[name].values.astype(str)[first_segments] for name in choice_dimensions})


def _name_gain_unit(fit_tree: xr.DataTree, rule: Rule) -> str:
    """Name what one unit of a gain is."""
    cells, plan = get_fitted_cells(fit_tree), get_plan(fit_tree)
    # Whose money is not known: the rule holds a number, not a currency.
    if rule.value is not None:
        return "money"
    return (plan.report.unit if plan is not None else "") or f"units of {cells.attrs['outcome']!r}"
