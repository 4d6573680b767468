"""Find the groups that a rule ships to: segments as they are decided one by one, levels by their average effect."""

import numpy as np
import xarray as xr

from bayes_hte.decisions.decide import build_context, build_evidence_table, call_arms, list_records
from bayes_hte.decisions.direction import is_direction_known
from bayes_hte.decisions.policy.choice import GROUP
from bayes_hte.decisions.policy.population import read_population
from bayes_hte.decisions.policy.valuation import PolicyTerms, SegmentGroups
from bayes_hte.decisions.rules.evidence import turn_to_benefit, weigh_benefit
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.estimands.weights import compute_average_weights
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM, SEGMENT
from bayes_hte.spec.fit_tree import get_fitted_cells


def find_ruled_groups(fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule, terms: PolicyTerms) -> xr.DataArray:
    """Find where a rule lets ship: True in the groups and arms that it calls, dims (group, arm).

    Costs and the choice among several arms are left to the allocation, which knows the cost of each arm.

    Parameters
    ----------
    fit_tree : xarray.DataTree
    question : EffectQuestion
        The scale of the rule, and the direction that is better.
    rule : Rule
        With the smallest effect that matters settled.
    terms : PolicyTerms
    """
    cells = get_fitted_cells(fit_tree)
    groups = SegmentGroups.collect(cells, terms.choice_dimensions)
    effects = compute_effects(fit_tree, question.scale).reset_coords(drop=True)
    if groups.is_every_segment:
        free_rule = rule.model_copy(update={"cost": 0.0})
        records = list_records(build_evidence_table(fit_tree, question, free_rule), free_rule)
        calls = call_arms(records, build_context(fit_tree, question, free_rule))
        # Rows of the table: the arms of a segment stand together.
        template = effects.isel(chain=0, draw=0, drop=True).transpose(SEGMENT, ARM)
        is_called = np.array([call.decision == "ship" for call in calls])
        ships = template.copy(data=is_called.reshape(template.shape))
        return ships.rename({SEGMENT: GROUP})
    # Levels have no decisions of their own: their average effect is held against the rule, draw by draw.
    shares = read_population(cells, terms.population)
    share_by_label = {
        str(label): float(share) for label, share in zip(shares[SEGMENT].values, shares.values, strict=True)
    }
    weights = compute_average_weights(fit_tree, question.scale, share_by_label)
    benefit = turn_to_benefit(groups.average_members(effects, weights), higher_is_better=question.higher_is_better)
    is_shipped = (weigh_benefit(benefit, rule)["decision"] == "ship").transpose(GROUP, ARM)
    # Help and harm cannot be told apart before somebody has said which direction is better.
    return is_shipped & is_direction_known(fit_tree, question)
