"""`Fit`: a posterior with its cells, and the tables, figures and files that answer questions about it."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import xarray as xr

from bayes_hte._support.atomic_files import write_file_atomically, write_text_atomically
from bayes_hte._support.numerics import isolate_methods
from bayes_hte._support.phrases import write_count
from bayes_hte._support.validation import check_path
from bayes_hte.analysis.plans.by_question import ByQuestion, RegisteredQuestions
from bayes_hte.criticism.arviz_groups import add_arviz_groups, add_log_densities
from bayes_hte.criticism.diagnostics import Diagnosis, read_diagnosis
from bayes_hte.decisions.decide import decide_segments
from bayes_hte.decisions.rules.evidence import choose_rule
from bayes_hte.errors import ArgumentError
from bayes_hte.estimands import by_dimension, tables
from bayes_hte.estimands.effects import compute_effect_draws, tabulate_effect_draws
from bayes_hte.estimands.heterogeneity import tabulate_heterogeneity
from bayes_hte.estimands.ranking import RankDirection, compare_arms, rank_segments
from bayes_hte.estimands.result_tables import mark_reliability
from bayes_hte.estimands.tables import ContrastReference, EffectQuestion
from bayes_hte.estimands.weights import AveragedThing, SegmentWeights
from bayes_hte.model.problem import build_problem
from bayes_hte.model.pymc.build import build_pymc_model
from bayes_hte.spec import Model, Plan, Rule, cell_table
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.fit_tree import (
    describe_engine,
    freeze_fit_tree,
    get_fitted_cells,
    get_fitted_model,
    get_plan,
    get_registration,
    get_seed,
    is_higher_better,
    require_known_model,
)
from bayes_hte.spec.questions.list_questions import QuestionKey

# PyMC, matplotlib and what needs them are imported on use: most questions need neither, and take less time.
if TYPE_CHECKING:
    import pymc as pm
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from bayes_hte.decisions.policy.population import StatedPopulation
    from bayes_hte.decisions.repetition.standard_errors import SecondTestSize
    from bayes_hte.plot.drawing.theme import Theme
    from bayes_hte.plot.drawing.visuals import Visuals
    from bayes_hte.plot.rows import RowOrder

# Names of before, each with the whole sentence that leads on: a script of then should not need the change log.
RENAMED_ATTRIBUTES = {
    "core": "fit.core is now fit.tree",
    "spec": "fit.spec is now fit.model",
    "tau_trace": "fit.tau_trace(...) is now fit.plot_tau_trace(...)",
    "compare": "fit.compare(...) is now hte.compare(fit, ...)",
    "loso": "fit.loso() is now hte.loso(fit)",
}


@isolate_methods
@dataclass(frozen=True, eq=False)  # no slots: `posterior` is kept once it is computed
class Fit:
    """A posterior and the questions it answers; nothing changes it once it is made.

    `hte.fit`, `hte.run`, `hte.load` and `hte.from_posterior` make one. Every table has a last column ``reliable``:
    whether the draws passed their diagnosis. ``attrs["problems"]`` says why not.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> fit = hte.example_fit()
    >>> table = fit.table("relative")
    >>> table["effect"].round(2).tolist()
    [0.09, 0.03, 0.17, 0.11, 0.15, 0.11]
    """

    _tree: xr.DataTree

    def __post_init__(self) -> None:
        """Keep a tree of this fit's own, whose values cannot be written to."""
        object.__setattr__(self, "_tree", freeze_fit_tree(self._tree))

    def __reduce__(self) -> tuple[type["Fit"], tuple[xr.DataTree]]:
        """Rebuild the fit from its tree in another process: pickled arrays would come back writable."""
        return Fit, (self._tree,)

    @property
    def tree(self) -> xr.DataTree:
        """The draws, what the engine says of itself, and the cells: everything is computed from it.

        A tree of the caller's own, which takes further groups and attributes; values are those of the fit, without a
        copy, and read-only.
        """
        return self._tree.copy(deep=False)

    @property
    def posterior(self) -> xr.DataTree:
        """Every group that ArviZ knows: every ArviZ function works on it.

        Groups posterior, sample_stats, log_likelihood, log_prior, posterior_predictive, prior, prior_predictive,
        observed_data, constant_data and cells; sign where the fast engine was used. What follows from the draws is
        computed when it is first asked for; log-likelihoods and predictive draws of more than 20 million
        numbers are left out. Like `tree` it is the caller's own, with values that are read-only.
        """
        return self._completed_tree.copy(deep=False)

    @cached_property
    def _completed_tree(self) -> xr.DataTree:
        """The tree with every group that ArviZ knows, kept once it is computed: log-likelihoods take a while."""
        return freeze_fit_tree(add_arviz_groups(self._tree_with_log_densities))

    @cached_property
    def _tree_with_log_densities(self) -> xr.DataTree:
        """The tree with what the report and the sensitivity to priors need: no replicated data are drawn for these."""
        return freeze_fit_tree(add_log_densities(self._tree))

    @property
    def cells(self) -> xr.Dataset:
        """The cell table, dims (segment, arm); values are read-only, ``fit.cells.copy(deep=True)`` can be changed."""
        return get_fitted_cells(self._tree).copy(deep=False)

    @property
    def model(self) -> Model:
        """What was believed, as the model file states it.

        Raises
        ------
        ModelError
            If only draws of a model of one's own are known.
        """
        return require_known_model(self._tree, "what was believed")

    @property
    def plan(self) -> Plan | None:
        """What was asked, if the fit came from a plan."""
        return get_plan(self._tree)

    @property
    def registered(self) -> RegisteredQuestions:
        """Whether what was asked was registered before the test, and why not; of one question, as `Analysis` has it.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> bool(hte.example_fit().registered)
        False
        """
        return RegisteredQuestions({self._question_key: get_registration(self._tree)})

    @property
    def fits(self) -> "ByQuestion[Fit]":
        """The fit by its metric and breakdown: what `Analysis` has of several.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> fit = hte.example_fit()
        >>> fit.fits["outcome", "device × customer"] is fit
        True
        """
        return ByQuestion({self._question_key: self})

    @property
    def _question_key(self) -> QuestionKey:
        """The metric and the dimensions, as a plan with several questions names them."""
        plan, cells = self.plan, self.cells
        metric_name = plan.metrics[0].name if plan is not None and plan.metrics else str(cells.attrs["outcome"])
        return metric_name, tuple(cell_table.list_dimensions(cells))

    def pymc_model(self) -> "pm.Model":
        """Build the PyMC model of this fit anew.

        Returns
        -------
        pymc.Model

        Raises
        ------
        ModelError
            If only draws of a model of one's own are known.
        """
        # A file can hold no PyMC model; cells and model say all of it.
        return build_pymc_model(build_problem(self.cells, require_known_model(self._tree, "the PyMC model")))

    @property
    def diagnosis(self) -> Diagnosis:
        """Whether the draws can be trusted; computed when the fit was made."""
        return read_diagnosis(self._tree)

    @property
    def engine(self) -> str:
        """Which engine drew the posterior, and why, as a sentence."""
        return describe_engine(self._tree)

    if not TYPE_CHECKING:  # a type checker would take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            """Lead from a name of before to the one of now."""
            # Python asks here only after the ordinary way has failed: that way's own error stands for any other name.
            if name in RENAMED_ATTRIBUTES:
                raise AttributeError(RENAMED_ATTRIBUTES[name])
            return object.__getattribute__(self, name)

    def question(
        self, scale: EffectScale | None = None, ci_prob: float | None = None, rope: float | None = None
    ) -> EffectQuestion:
        """Fill in what is not stated from the plan, else absolute effects and 95 % intervals."""
        plan = self.plan
        if plan is None:
            return EffectQuestion(
                "absolute" if scale is None else scale,
                0.95 if ci_prob is None else ci_prob,
                rope,
                higher_is_better=is_higher_better(self._tree),
            )
        report_options = plan.report
        chosen_scale = report_options.scale if scale is None else scale
        return EffectQuestion(
            scale=chosen_scale,
            ci_prob=report_options.ci_prob if ci_prob is None else ci_prob,
            # The plan's smallest effect that matters is a number on the plan's own scale.
            rope=plan.matters if rope is None and chosen_scale == report_options.scale else rope,
            higher_is_better=is_higher_better(self._tree),
        )

    def effects(self, scale: EffectScale | None = None) -> xr.DataArray:
        """Compute the joint draws of every segment's effect: for any question that no table answers.

        Parameters
        ----------
        scale : {"absolute", "relative", "link"}, optional
            As in `table`.

        Returns
        -------
        xarray.DataArray
            Dims (chain, draw, segment, arm), labelled; ``attrs["scale"]`` and ``attrs["units"]`` say what the
            numbers are. A draw holds all segments together, so sums, differences and rankings of effects have the
            probabilities that the model gives them.

        Raises
        ------
        ArgumentError
            If there is no such scale.
        ModelError
            If the scale needs a control mean that the family does not have.

        Examples
        --------
        How probable is it that the short checkout helps new customers on phones more than on desktops?

        >>> import bayes_hte as hte
        >>> effects = hte.example_fit().effects().sel(arm="short")
        >>> is_larger = effects.sel(segment="mobile · new") > effects.sel(segment="desktop · new")
        >>> round(float(is_larger.mean()), 2)
        0.78
        """
        return compute_effect_draws(self._tree, self.question(scale).scale)

    def draws(self, scale: EffectScale | None = None) -> pd.DataFrame:
        """Tabulate the joint draws of every segment's effect, one row each: for databases and plotting libraries.

        Parameters
        ----------
        scale : {"absolute", "relative", "link"}, optional
            As in `table`.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm, chain, draw, effect (on `scale`), reliable. Rows that share chain and draw
            belong together. As many rows as draws times segments times treated arms: 4,000 for each segment by
            default.

        Raises
        ------
        ArgumentError
            If there is no such scale.
        ModelError
            If the scale needs a control mean that the family does not have.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> draws = hte.example_fit().draws("relative")
        >>> list(draws.columns), len(draws)
        (['device', 'customer', 'arm', 'chain', 'draw', 'effect', 'reliable'], 24000)
        >>> draws.groupby("device")["effect"].quantile([0.05, 0.95]).shape
        (6,)
        """
        return attach_verdict(self, tabulate_effect_draws(self._tree, self.question(scale).scale))

    def table(
        self,
        scale: EffectScale | None = None,
        ci_prob: float | None = None,
        *,
        rope: float | None = None,
        rule: Rule | None = None,
        detail: bool = False,
    ) -> pd.DataFrame:
        """Tabulate every segment's effect.

        Parameters
        ----------
        scale : {"absolute", "relative", "link"}, optional
            Difference in means (or probability), that divided by the control's mean, or log-odds /
            the outcome itself. By default the plan's, else absolute.
        ci_prob : float, optional
            Probability of the intervals; by default the plan's, else 0.95.
        rope : float, optional
            The smallest effect that matters, on `scale`: adds p_rope, p_benefit and p_harm.
        rule : Rule, optional
            Adds decision, as `decide` gives it, and the columns of the rule's smallest effect that matters; by default
            the plan's rule, where it has one and effects are on its scale.
        detail : bool
            Add effect_mcse and p_mcse (Monte-Carlo standard errors), pooling_low and pooling_high
            (interval of the pooling factor), complete and complete_se (the completely pooled estimate).

        Returns
        -------
        pandas.DataFrame
            One row per segment and arm: a column per dimension, arm, n_control, n_treated, raw,
            raw_se (the segment on its own), effect (posterior mean), sd, ci_low, ci_high,
            p_positive, p_negative, pooling (share of the estimate that is borrowed), size_control and size_treated
            (what the segment stands for, where that is not its units), reliable: False
            when the diagnosis failed, and ``attrs["problems"]`` says why.

        Raises
        ------
        ArgumentError
            If scale, ci_prob or rope make no sense.
        ModelError
            If the scale needs a control mean that the family does not have.
        """
        question, plan = self.question(scale, ci_prob, rope), self.plan
        # Numbers of the plan's rule mean something on the plan's own scale.
        is_ruled = plan is not None and plan.decision is not None and question.scale == plan.report.scale
        if rule is None and not is_ruled:
            return attach_verdict(self, tables.tabulate_segments(self._tree, question, with_detail=detail))
        chosen_rule = choose_rule(rule, plan, question.scale)
        sized_question = replace(question, rope=chosen_rule.matters if rope is None else rope)
        effect_table = tables.tabulate_segments(self._tree, sized_question, with_detail=detail)
        decisions = decide_segments(self._tree, question, chosen_rule)["decision"]
        return attach_verdict(self, effect_table.assign(decision=decisions))

    def ate(
        self,
        scale: EffectScale | None = None,
        ci_prob: float | None = None,
        *,
        weights: SegmentWeights | None = None,
        of: AveragedThing = "total",
    ) -> pd.DataFrame:
        """Average the effect over segments with the population's shares, one row per arm.

        Parameters
        ----------
        scale, ci_prob
            As in `table`.
        weights : mapping or pandas.Series, optional
            Population size by segment label; by default the sizes of the cells in all arms of the experiment: units,
            rows of clusters, the denominator, the exposure, or the sum of weights.
        of : {"total", "segments"}
            Of relative effects, what is averaged. "total" is the change in the mean of everyone, treated against
            control, by how much the total rises; "segments" is the mean of the segments' own ratios, in which one
            with few events can rise most. On other scales both are the same.

        Returns
        -------
        pandas.DataFrame
            arm, n_control, n_treated (units, each cluster once), effect, sd, ci_low, ci_high, p_positive, p_negative,
            p_mcse, raw and raw_se (the plain difference of the arms and its standard error: no segments, no pooling, no
            covariates); size_control and size_treated where segments count by something else than units.
            ``attrs["average"]`` says what the average is, ``attrs["population"]`` whose, ``attrs["dependence"]``, where
            clusters have rows in several segments, that it is less sure than it looks.

        Raises
        ------
        ArgumentError
            If scale or ci_prob make no sense, the weights make no population, or there is no such average.
        ModelError
            If the scale needs a control mean that the family does not have.

        Notes
        -----
        Shares are those of all arms together. On the link scale it is the mean of log-odds ratios, log ratios or
        log hazard ratios; of survival the relative one is the change in the hazard of all at the start, when nobody
        has left.

        It differs from ``effect_mean`` in `heterogeneity`, the centre that segments shrink to: that is
        the mean over an imagined population of segments, each counted once.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> fit = hte.example_fit()
        >>> total, segments = fit.ate("relative"), fit.ate("relative", of="segments")
        >>> round(float(total["effect"].iloc[0]), 3), round(float(segments["effect"].iloc[0]), 3)
        (0.089, 0.104)
        >>> total.attrs["average"], total.attrs["population"]
        ("change in the mean of all, relative to the control's", '52,906 units')
        """
        return attach_verdict(self, tables.tabulate_ate(self._tree, self.question(scale, ci_prob), weights, of))

    def decide(
        self, rule: Rule | None = None, *, scale: EffectScale | None = None, ci_prob: float | None = None
    ) -> pd.DataFrame:
        """Decide for every segment and arm by a rule: ship, stop, equivalent or undecided, and why.

        Parameters
        ----------
        rule : Rule, optional
            By default the plan's ``[decision]``, else `hte.Rule()`. Where the rule states no smallest effect that
            matters, the plan's ``report.rope`` is it.
        scale, ci_prob
            As in `table`: the scale of the numbers in the rule, and the interval that `why` speaks of.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm, decision, why (a sentence with numbers), p_benefit, p_harm and p_equivalent
            (of an effect that matters on the better side, on the worse, and of one too small to matter: they add up to
            1), expected_gain (what shipping brings per treated unit, after costs: money where the rule has a value,
            else units of the outcome), expected_loss (what it loses where it is wrong, on average; not shipping loses
            the sum of both), p_wrong (shipped without benefit, stopped without harm, equivalent and larger; NaN where
            undecided), pooling, reliable. ``attrs["all_segments"]`` says what the rule makes of the average, by arm,
            ``attrs["gain_units"]`` what gains are counted in.

        Raises
        ------
        ArgumentError
            If `rule` is no rule, scale or ci_prob make no sense, or the plan's rule is for another scale.
        PlanError
            If the rule names the smallest effect that matters, and nobody states it.

        Notes
        -----
        A segment that borrows more than 80 % of its estimate is never called on its own, nor is one without data, or
        anything while it is doubtful which direction is better. Of several arms that may be shipped to a segment only
        the one that gains most is; `why` has the probability that it is the best. Where P(benefit > 0) is above 95 %
        and the interval holds 0, `why` says why that is no contradiction.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> decisions = hte.example_fit().decide(hte.Rule(matters=0.005))
        >>> decisions["decision"].tolist()
        ['undecided', 'undecided', 'ship', 'ship', 'undecided', 'undecided']
        >>> print(decisions["why"][0])
        To ship, the benefit must be above 0 with probability 95 %, and is with 92.4 %.
        """
        question = self.question(scale, ci_prob)
        chosen_rule = choose_rule(rule, self.plan, question.scale)
        return attach_verdict(self, decide_segments(self._tree, question, chosen_rule))

    def multiplicity(
        self, rule: Rule | None = None, *, scale: EffectScale | None = None, ci_prob: float | None = None
    ) -> pd.DataFrame:
        """Set what the posterior says of many segments beside p-values that are corrected for their number.

        Parameters
        ----------
        rule, scale, ci_prob
            As in `decide`; ci_prob is also the probability of the simultaneous intervals.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm, raw and raw_se (the segment on its own), test ("z"; "Fisher" or "conditional
            binomial" where counts are few), p_raw (its two-sided p-value), p_holm, p_bh (by Holm, by Benjamini and
            Hochberg, over all rows), effect, p_positive, local_false_sign_rate (the probability that the likelier sign
            is wrong), simultaneous_low, simultaneous_high (hold all effects together with ci_prob), decision, p_wrong,
            reliable. ``attrs``: calls (ship and stop), expected_wrong_calls, expected_wrong_share,
            p_all_calls_right (from joint draws), wanted_wrong_share (of the rule), simultaneous_prob.

        Raises
        ------
        ArgumentError, PlanError
            As in `decide`.

        Notes
        -----
        Expected wrong calls are right if effects are like the model says. Pooling has already moved estimates toward
        each other, so p_positive needs no correction under the model; p-values do, as each segment stands alone there.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> multiplicity = hte.example_fit().multiplicity()
        >>> multiplicity[["p_raw", "p_holm", "p_bh"]].round(3).iloc[2].tolist()
        [0.001, 0.003, 0.003]
        >>> multiplicity.attrs["calls"], round(multiplicity.attrs["expected_wrong_calls"], 2)
        (2, 0.02)
        """
        from bayes_hte.decisions.multiplicity import tabulate_multiplicity

        question = self.question(scale, ci_prob)
        chosen_rule = choose_rule(rule, self.plan, question.scale)
        return attach_verdict(self, tabulate_multiplicity(self._tree, question, chosen_rule))

    def heterogeneity(
        self, scale: EffectScale | None = None, ci_prob: float | None = None, *, rope: float | None = None
    ) -> pd.DataFrame:
        """Measure how much effects differ between segments.

        Returns
        -------
        pandas.DataFrame
            arm, quantity, value (posterior mean or probability), ci_low, ci_high, meaning. Quantities:
            effect_mean, between_sd (tau; between_sd[...] per stratum or dimension that has its own), slope[...] per
            covariate, correlation, i2, spread (SD over the population on the reported scale), p_all_positive,
            p_all_negative, share_harmed, p_qualitative (some effects positive, some negative, both by more than the
            rope) and gail_simon_p, the p-value of the test for that (Gail & Simon 1985); where a rope is stated
            p_spread_matters, and p_tau_matters if it is on tau's own scale.
        """
        return attach_verdict(self, tabulate_heterogeneity(self._tree, self.question(scale, ci_prob, rope)))

    def variance_shares(self, ci_prob: float | None = None, *, weights: SegmentWeights | None = None) -> pd.DataFrame:
        """Divide the variance of effects among a model's parts: which dimension drives the differences.

        Returns
        -------
        pandas.DataFrame
            arm, source (a term of ``effect.by``, covariates, rest), share (posterior mean; shares of an arm add up to
            1), share_low, share_high, sd (SD of the part over the segments at hand, link scale), sd_low, sd_high.

        Raises
        ------
        ModelError
            If the model has neither ``effect.by`` nor covariates.

        References
        ----------
        Gelman (2005), Annals of Statistics 33:1: finite-population variances, here with the population's shares.
        """
        return attach_verdict(
            self, by_dimension.tabulate_variance_shares(self._tree, self.question(None, ci_prob), weights)
        )

    def marginal(
        self,
        dimension: str,
        scale: EffectScale | None = None,
        ci_prob: float | None = None,
        *,
        weights: SegmentWeights | None = None,
    ) -> pd.DataFrame:
        """Average the effects of a dimension's levels over their segments, with the population's shares.

        Relative effects are those of the level's total, as in `ate`.

        Returns
        -------
        pandas.DataFrame
            level, arm, n_control, n_treated, effect, sd, ci_low, ci_high, p_positive, p_negative, and the columns of a
            rope where the plan states one.

        Raises
        ------
        ArgumentError
            If there is no such dimension, or a level has no weight.
        """
        return attach_verdict(
            self, by_dimension.tabulate_marginal_effects(self._tree, dimension, self.question(scale, ci_prob), weights)
        )

    def ranks(
        self, scale: EffectScale | None = None, ci_prob: float | None = None, *, best: RankDirection | None = None
    ) -> pd.DataFrame:
        """Rank every segment among all segments by its effect; rank 1 is the best.

        Parameters
        ----------
        scale, ci_prob
            As in `table`.
        best : {"highest", "lowest"}, optional
            Which effects are good; by default as the plan says, else the highest.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm, rank_mean, rank_low, rank_high, p_best, p_worst.

        Raises
        ------
        DataError
            If there is one segment.
        """
        return attach_verdict(self, rank_segments(self._tree, self.question(scale, ci_prob), best))

    def best_arm(self, scale: EffectScale | None = None) -> pd.DataFrame:
        """Compare the arms of each segment, the control included: which is best, and by how much.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm, effect (posterior mean; 0 for the control), p_best (probability that the arm
            has the best mean outcome), p_mcse, expected_loss (how much better the best arm is expected to be).
        """
        return attach_verdict(self, compare_arms(self._tree, self.question(scale)))

    def policy(
        self,
        rule: Rule | None = None,
        population: "StatedPopulation | None" = None,
        budget: float | None = None,
        *,
        by: str | Sequence[str] | None = None,
        costs: Mapping[str, float] | None = None,
        scale: EffectScale | None = None,
        ci_prob: float | None = None,
    ) -> pd.DataFrame:
        """Compare policies, who gets what: what each is worth, which is best, and what targeting adds.

        Parameters
        ----------
        rule : Rule, optional
            Its ``value``, money per unit of absolute benefit, and ``cost`` of one treated unit, in money where a value
            is stated, else in units of the outcome. By default the plan's, else costs of 0.
        population : mapping or pandas.DataFrame, optional
            Whose gain counts, in shares that add up to 1: ``{segment: share}``, ``{dimension: {level: share}}`` or a
            table with columns of dimensions and ``share``. By default the experiment's own population.
        budget : float, optional
            The largest share of the population that may be treated; by default everybody may.
        by : str or sequence of str, optional
            Choose among the levels of these dimensions, averaged over the others with the population's shares: *ship
            to mobile*. By default among segments.
        costs : mapping, optional
            Cost of one treated unit by arm, in place of the rule's for all.
        scale : {"absolute", "relative", "link"}, optional
            Of the numbers in the rule's conditions, as in `decide`; gains are absolute on every scale.
        ci_prob : float, optional
            As in `table`.

        Returns
        -------
        pandas.DataFrame
            One row per policy: policy, arm (the one that is shipped, "best" where it differs), share_treated, gain (per
            unit of the population over shipping to none, costs taken off; above 0 is better, also where a lower
            outcome is), ci_low, ci_high, p_positive, p_best (P(none of the policies gains more); those that treat the
            same people are one policy), versus_all (gain over shipping to all), versus_all_low, versus_all_high,
            p_beats_all, raw_gain (the same policy by raw estimates, which promise too much: the winner's curse), regret
            (what it is expected to lose against knowing every effect), outcome_gain, outcome_low, outcome_high (in
            units of the outcome, before costs), treats (who is treated), reliable. ``attrs`` say what a gain is, whose,
            under which budget, over what it is marginal, and which policy ``all`` is.

        Raises
        ------
        ArgumentError
            If the rule is none, shares make no population, the budget is no share, or a dimension or an arm is unknown.

        Notes
        -----
        The chosen segments have a posterior expected gain above their cost. Choosing by a posterior and valuing by
        the same one is not optimistic: given the data the expected gain of the best choice is its own posterior mean.
        Choosing and valuing by raw estimates is. Both hold if effects are as the prior says.

        Under a budget segments are filled in the order of their gain per treated unit, the last one in part, by chance;
        shipping to all then ships to as many as it allows, by chance.

        Examples
        --------
        Half a percentage point more buyers pays for the short checkout; who should get it?

        >>> import bayes_hte as hte
        >>> policies = hte.example_fit().policy(hte.Rule(cost=0.005))
        >>> columns = ["policy", "share_treated", "gain", "ci_low", "ci_high"]
        >>> print(policies[columns].round(3).to_string(index=False))
                                          policy  share_treated  gain  ci_low  ci_high
                                    ship to none          0.000 0.000   0.000    0.000
                                     ship to all          1.000 0.002  -0.002    0.007
                     ship to the chosen segments          0.721 0.003  -0.001    0.007
        ship to the segments that the rule calls          0.509 0.003  -0.000    0.006
        """
        from bayes_hte.decisions.policy.comparison import tabulate_policies
        from bayes_hte.decisions.policy.valuation import check_terms

        terms = check_terms(self._tree, population, budget, by, costs)
        question = self.question(scale, ci_prob)
        chosen_rule = choose_rule(rule, self.plan, question.scale)
        return attach_verdict(self, tabulate_policies(self._tree, question, chosen_rule, terms))

    def policy_curve(
        self,
        rule: Rule | None = None,
        population: "StatedPopulation | None" = None,
        budget: float | None = None,
        *,
        by: str | Sequence[str] | None = None,
        costs: Mapping[str, float] | None = None,
        ci_prob: float | None = None,
    ) -> pd.DataFrame:
        """Trace the gain of treating more and more people, and how stable each segment's place in the policy is.

        Parameters
        ----------
        rule, population, budget, by, costs, ci_prob
            As in `policy`.

        Returns
        -------
        pandas.DataFrame
            One row per segment, the largest expected net gain per treated unit first: a column per dimension of the
            choice, arm (the one that is expected to gain most there), population_share, net_gain (per treated unit,
            cost taken off), net_low, net_high; share_treated and gain of treating this segment and all before it,
            ci_low, ci_high (at this share), band_low, band_high (hold the whole curve with the same probability);
            part_treated (the part of the segment that the policy treats), p_optimal (probability that a policy
            which knew all effects would give it this arm; under a budget the expected part of it), p_flip (probability
            that it would treat the segment otherwise than this policy does), reliable.

        Raises
        ------
        ArgumentError
            As in `policy`.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> curve = hte.example_fit().policy_curve(hte.Rule(cost=0.005), by="device")
        >>> print(curve[["device", "share_treated", "gain", "part_treated"]].round(3).to_string(index=False))
         device  share_treated  gain  part_treated
         mobile          0.509 0.003           1.0
         tablet          0.525 0.003           1.0
        desktop          1.000 0.002           0.0
        """
        from bayes_hte.decisions.policy.curve import tabulate_policy_curve
        from bayes_hte.decisions.policy.valuation import check_terms

        terms = check_terms(self._tree, population, budget, by, costs)
        interval_prob = self.question(None, ci_prob).ci_prob
        return attach_verdict(
            self, tabulate_policy_curve(self._tree, choose_rule(rule, self.plan), terms, interval_prob)
        )

    def plot_policy(  # noqa: PLR0913 - the choices of a figure; each is one word at the call
        self,
        rule: Rule | None = None,
        population: "StatedPopulation | None" = None,
        budget: float | None = None,
        *,
        by: str | Sequence[str] | None = None,
        costs: Mapping[str, float] | None = None,
        ci_prob: float | None = None,
        labels: int | None = None,
        percent: bool | None = None,
        axis_label: str | None = None,
        title: str | None = None,
        caption: str | None = None,
        figure: "Figure | SubFigure | None" = None,
        ax: "Axes | None" = None,
        visuals: "Visuals | None" = None,
        theme: "Theme | None" = None,
    ) -> "Axes":
        """Draw the gain of treating more and more people, above how stable each segment's place in the policy is.

        Terms are those of `policy`, options those of `bayes_hte.plot.draw_policy`; what is not given is as the fit and
        its plan say. `policy_curve` has the numbers.

        Returns
        -------
        matplotlib.axes.Axes
            Of the curve: shares from 0 to 1, gains as its label says.
        """
        from bayes_hte.plot import from_fit

        options = _keep_given(
            labels=labels, percent=percent, axis_label=axis_label, title=title, caption=caption, figure=figure, ax=ax,
            visuals=visuals, theme=theme,
        )  # fmt: skip
        options["ci_prob"] = self.question(None, ci_prob).ci_prob
        curve_table = self.policy_curve(rule, population, budget, by=by, costs=costs, ci_prob=ci_prob)
        return from_fit.plot_policy(self._tree, curve_table, **options)

    def contrasts(
        self,
        against: ContrastReference = "rest",
        scale: EffectScale | None = None,
        ci_prob: float | None = None,
        *,
        weights: SegmentWeights | None = None,
    ) -> pd.DataFrame:
        """Tabulate differences between effects, from joint draws.

        Parameters
        ----------
        against : {"rest", "ate", "pairs"}
            Each segment less the average of all others, less the ATE, or every pair. Averages are those of `ate`: of
            relative effects, the change of the total.

        Returns
        -------
        pandas.DataFrame
            arm, segment, against, difference, sd, ci_low, ci_high, p_positive, p_negative.
        """
        return attach_verdict(
            self, tables.tabulate_contrasts(self._tree, self.question(scale, ci_prob), against, weights)
        )

    def predict_new_segment(
        self,
        scale: EffectScale | None = None,
        ci_prob: float | None = None,
        *,
        where: Mapping[str, str] | None = None,
        covariates: Mapping[str, float] | None = None,
    ) -> pd.DataFrame:
        """Predict the effect in a segment that was not in the experiment, one row per arm.

        Parameters
        ----------
        scale, ci_prob
            As in `table`.
        where : mapping, optional
            Dimension -> level, for models whose levels have effects (``by``) or between-segment SDs (``strata``) of
            their own: a level that was seen has the effect it was found to have, any other is drawn.
        covariates : mapping, optional
            Covariate -> value in its own units; by default the mean of the segments.

        Returns
        -------
        pandas.DataFrame
            arm, effect, sd, ci_low, ci_high, p_positive, p_negative; reliable is False as well where a few extreme
            draws decide the mean, which then lies outside of the central 95 %.

        Raises
        ------
        ArgumentError
            If a dimension, level or covariate is not known.
        ModelError
            If effects were not pooled.
        """
        return attach_verdict(
            self,
            # With the fit's own seed: the same question has the same answer.
            tables.tabulate_new_segment(
                self._tree,
                self.question(scale, ci_prob),
                seed=get_seed(self._tree),
                where=where,
                covariates=covariates,
            ),
        )

    def replication(
        self,
        n: "SecondTestSize | None" = None,
        rule: Rule | None = None,
        *,
        scale: EffectScale | None = None,
        ci_prob: float | None = None,
    ) -> pd.DataFrame:
        """Predict what a second test would show: the same sign, the same decision; and how far raw estimates err.

        Parameters
        ----------
        n : number, mapping or pandas.Series, optional
            Units of the second test in all arms, divided among segments as in this one; or those of each segment by its
            label. By default as many as in this test.
        rule : Rule, optional
            By default as in `decide`.
        scale, ci_prob
            As in `table`; an estimate is clear where its interval of `ci_prob` leaves 0 out.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm, raw and raw_se (this test's own estimate), next_se (standard error of the
            second test's), p_same_sign (probability that the second test's own estimate has the sign of this one's),
            p_significant (that it is clear besides), power (probability that it is clear, on whichever side), type_s
            and type_m (of clear raw estimates: the probability of a wrong sign, and how many times as large as the
            effect they are on average), decision (of `decide`), p_same_decision (probability that the second test,
            analysed on its own with the same model, leads to the same), reliable. NaN where a segment was not tested.

        Raises
        ------
        ArgumentError
            If `n`, `rule`, scale or ci_prob make no sense.
        DataError
            If `n` is given, and nobody has said how large this test was.
        PlanError
            If the rule names the smallest effect that matters, and nobody states it.

        Notes
        -----
        The second test differs from this one by chance alone: its effects are those of this posterior. Of a fit that
        combines two tests, they are those of a further test, which differs as these two do. The second test's analysis
        is the normal approximation of the joint posterior with this test's own estimates taken out.

        References
        ----------
        Gelman & Carlin (2014), Perspectives on Psychological Science 9:641.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> second = hte.example_fit().replication()
        >>> second["p_same_sign"].round(1).tolist()
        [0.8, 0.3, 1.0, 0.9, 0.7, 0.6]
        """
        from bayes_hte.decisions.repetition.replication import tabulate_replication

        question = self.question(scale, ci_prob)
        chosen_rule = choose_rule(rule, self.plan, question.scale)
        return attach_verdict(self, tabulate_replication(self._tree, question, chosen_rule, n))

    def next_test(
        self,
        assurance: float = 0.8,
        rule: Rule | None = None,
        *,
        n: float | None = None,
        scale: EffectScale | None = None,
    ) -> pd.DataFrame:
        """Find how many more units each segment needs until a decision is likely, and what a follow-up is worth.

        Parameters
        ----------
        assurance : float
            How probable it must be that the decision is reached, by what is known now.
        rule : Rule, optional
            By default as in `decide`.
        n : number, optional
            Further units of the follow-up whose worth is computed; by default as many as the segment has.
        scale : {"absolute", "relative", "link"}, optional
            As in `table`: that of the numbers in the rule.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm, decision (now), units_now (of the arm and the control), units_needed (further
            ones, split as now; 0 where it is decided, missing where no number is enough), p_decision (probability of a
            decision then), evsi_units (`n`), evsi, evsi_own (worth of that follow-up: the expected value of sample
            information, for decisions on all segments and on this one alone), evpi (of knowing this segment's effect),
            all per person of the population, the first two missing where the arm was not tested; why, reliable.
            ``attrs["gain_units"]`` says in what, ``attrs["units"]`` of what.

        Raises
        ------
        ArgumentError
            If assurance is no probability, `n` no number above 0, or `rule` no rule.
        DataError
            If nobody has said how large the cells are.
        PlanError
            If the rule names the smallest effect that matters, and nobody states it.

        Notes
        -----
        A preposterior analysis: a follow-up in one segment alone, whose estimate is normal with the precision that its
        units have had so far; posteriors are updated as normal ones. Each arm is compared with the control by itself.

        References
        ----------
        Raiffa & Schlaifer (1961), Applied Statistical Decision Theory.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> plan = hte.example_fit().next_test(0.8, hte.Rule(matters=0.005))
        >>> print(plan["why"][2])
        Decided: ship.
        """
        from bayes_hte.decisions.repetition.next_test import tabulate_next_test

        question = self.question(scale)
        chosen_rule = choose_rule(rule, self.plan, question.scale)
        return attach_verdict(self, tabulate_next_test(self._tree, question, chosen_rule, assurance, n))

    def compare_tests(self, scale: EffectScale | None = None, ci_prob: float | None = None) -> pd.DataFrame:
        """Compare the two tests of a combined fit: each segment's effect in either, and what a third would show.

        Parameters
        ----------
        scale, ci_prob
            As in `table`.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm; posterior mean and interval of the effect in the first and the second test, of
            their difference and of the effect in a further test (first, first_low, first_high; second, …; difference,
            …; next, …); p_differ (probability of the sign of the difference), p_opposite (that the signs of the
            effects are opposite), raw_difference and raw_p (of the estimates of each test alone, without pooling),
            disagree, why. ``attrs["between_tests"]`` has the SD of a segment's effect between tests, link scale.

        Raises
        ------
        ModelError
            If the fit is of one test.

        Examples
        --------
        >>> import bayes_hte as hte
        >>> both = hte.combine(hte.example_fit(), hte.example_fit())
        >>> bool(both.compare_tests()["disagree"].any())
        False
        """
        from bayes_hte.decisions.repetition.between_tests import tabulate_test_comparison

        return attach_verdict(self, tabulate_test_comparison(self._tree, self.question(scale, ci_prob)))

    def survival(self, times: Sequence[float] | float | None = None, ci_prob: float | None = None) -> pd.DataFrame:
        """Tabulate survival of every segment under control and treatment at stated times.

        Parameters
        ----------
        times : float or sequence of float, optional
            In the units of the data, within the follow-up; by default the horizon of the cells.
        ci_prob : float, optional
            Probability of the intervals.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm, time, survival_control, survival_treated (posterior means), difference (in
            survival, treated minus control), sd, ci_low, ci_high, p_positive, p_negative; then the restricted mean
            time, the mean time without the event up to that time, in the units of the data: mean_time_control,
            mean_time_treated, mean_time_difference, mean_time_low, mean_time_high. Hazard ratios are the relative
            scale of `table`, plus one.

        Raises
        ------
        ModelError
            If the outcome is not survival.
        DataError
            If a time is beyond the follow-up.
        """
        from bayes_hte.estimands.survival_curves import tabulate_survival

        return attach_verdict(self, tabulate_survival(self._tree, times, self.question(None, ci_prob)))

    def sensitivity(self, scale: EffectScale | None = None) -> pd.DataFrame:
        """Measure how much answers would move if the priors, or the data, counted a little more or less.

        Returns
        -------
        pandas.DataFrame
            quantity, prior, likelihood (power-scaling sensitivities; above 0.05 is noticeable), diagnosis in words.

        Raises
        ------
        DataError
            If the fit is too large for its log-likelihood to be kept.

        References
        ----------
        Kallioinen, Paananen, Bürkner & Vehtari (2024), Statistics and Computing 34:57.
        """
        from bayes_hte.criticism.prior_sensitivity import tabulate_sensitivity

        return attach_verdict(self, tabulate_sensitivity(self._tree_with_log_densities, self.question(scale)))

    def given_tau(self, scale: EffectScale | None = None, *, dimension: str | None = None) -> pd.DataFrame:
        """Tabulate every segment's effect if the between-segment SD were known: the numbers behind `plot_tau_trace`.

        The scale is that of the report, unless it needs parameters that all segments share, as counts, ordered scales
        and survival do on the absolute one: then it is the link scale.

        Parameters
        ----------
        scale : {"absolute", "relative", "link"}, optional
        dimension : str, optional
            A dimension of the model's ``effect.by``: tau is then the SD between its levels, in place of the SD between
            segments beyond their levels.

        Returns
        -------
        pandas.DataFrame
            One row per arm, segment and value of tau: a column per dimension, arm, tau (link scale), effect (its
            posterior mean at that tau, on `scale`), density (posterior density of tau).

        Raises
        ------
        ArgumentError
            If effects do not differ by the levels of `dimension`.
        ModelError
            If effects are not partially pooled, or the structure is beyond the exact engine.
        """
        from bayes_hte.criticism.tau_profile import choose_profile_scale, profile_tau

        scale = scale or choose_profile_scale(self._tree, self.question(scale).scale)
        return attach_verdict(self, profile_tau(self._tree, scale, dimension))

    def plot_tau_trace(  # noqa: PLR0913 - the choices of a figure; each is one word at the call
        self,
        scale: EffectScale | None = None,
        *,
        dimension: str | None = None,
        arm: str | None = None,
        ci_prob: float | None = None,
        labels: int | None = None,
        max_segments: int | Literal["auto"] | None = "auto",
        unit: str | None = None,
        percent: bool | None = None,
        axis_label: str | None = None,
        tau_label: str | None = None,
        title: str | None = None,
        caption: str | None = None,
        figure: "Figure | SubFigure | None" = None,
        ax: "Axes | None" = None,
        visuals: "Visuals | None" = None,
        theme: "Theme | None" = None,
    ) -> "Figure | SubFigure":
        """Draw every segment's effect as a function of the between-segment SD, over the posterior of that SD.

        The single picture of partial pooling: on the left all segments have the common effect, on the right each
        has its own estimate, and the posterior beneath says which part matters. Options are those of
        `bayes_hte.plot.draw_tau_trace`; what is not given is as the fit and its plan say. `given_tau` has the numbers.
        With a `dimension` of the model's ``effect.by`` it is the SD between the levels of that dimension: on the left
        they have the same effect, and segments differ by what is left.

        Raises
        ------
        ArgumentError
            If effects do not differ by the levels of `dimension`, or an option makes no sense.
        ModelError
            If effects are not partially pooled, or the structure is beyond the exact engine.
        """
        from bayes_hte.criticism.tau_profile import choose_profile_scale
        from bayes_hte.plot import from_fit

        options = _keep_given(
            max_segments, arm=arm, ci_prob=ci_prob, labels=labels, unit=unit, percent=percent, axis_label=axis_label,
            tau_label=tau_label, title=title, caption=caption, figure=figure, ax=ax, visuals=visuals, theme=theme,
        )  # fmt: skip
        # Chosen once, so that the figure and its numbers are on the same scale.
        scale = scale or choose_profile_scale(self._tree, self.question(scale).scale)
        tau_profile = self.given_tau(scale, dimension=dimension)
        return from_fit.plot_tau_trace(
            self._tree, self.question(scale), self.plan, tau_profile, dimension=dimension, **options
        )

    def plot_forest(  # noqa: PLR0913 - the choices of a figure; each is one word at the call
        self,
        scale: EffectScale | None = None,
        *,
        arm: str | None = None,
        ci_prob: float | None = None,
        order: "RowOrder | None" = None,
        group_by: str | None = "auto",
        layout: Literal["wide", "narrow"] = "wide",
        control: str | None = None,
        max_segments: int | Literal["auto"] | None = "auto",
        unit: str | None = None,
        percent: bool | None = None,
        axis_label: str | None = None,
        pooled: str | None = None,
        title: str | None = None,
        caption: str | None = None,
        figure: "Figure | SubFigure | None" = None,
        ax: "Axes | None" = None,
        visuals: "Visuals | None" = None,
        theme: "Theme | None" = None,
    ) -> "Figure | SubFigure":
        """Draw the forest plot, the best effect first.

        Options are those of `bayes_hte.plot.draw_forest`; what is not given is as the fit and its plan say.
        """
        from bayes_hte.plot import from_fit

        options = _keep_given(
            max_segments,
            arm=arm, ci_prob=ci_prob, order=order, control=control, unit=unit, percent=percent, axis_label=axis_label,
            pooled=pooled, title=title, caption=caption, figure=figure, ax=ax, visuals=visuals, theme=theme,
        )  # fmt: skip
        options |= {"group_by": group_by, "layout": layout}
        return from_fit.plot_forest(self._tree, self.question(scale), self.plan, **options)

    def plot_shrinkage(  # noqa: PLR0913 - the choices of a figure; each is one word at the call
        self,
        scale: EffectScale | None = None,
        *,
        arm: str | None = None,
        labels: int | None = None,
        layout: Literal["wide", "narrow"] | None = None,
        max_segments: int | Literal["auto"] | None = "auto",
        unit: str | None = None,
        percent: bool | None = None,
        axis_label: str | None = None,
        pooled: str | None = None,
        title: str | None = None,
        caption: str | None = None,
        figure: "Figure | SubFigure | None" = None,
        ax: "Axes | None" = None,
        visuals: "Visuals | None" = None,
        theme: "Theme | None" = None,
    ) -> "Figure | SubFigure":
        """Draw raw estimates moving to pooled ones.

        Options are those of `bayes_hte.plot.draw_shrinkage`; what is not given is as the fit and its plan say.
        """
        from bayes_hte.plot import from_fit

        options = _keep_given(
            max_segments,
            arm=arm, labels=labels, layout=layout, unit=unit, percent=percent, axis_label=axis_label, pooled=pooled,
            title=title, caption=caption, figure=figure, ax=ax, visuals=visuals, theme=theme,
        )  # fmt: skip
        return from_fit.plot_shrinkage(self._tree, self.question(scale), self.plan, **options)

    def predictive_checks(self, ci_prob: float | None = None) -> pd.DataFrame:
        """Check whether data like these were to be expected under the fitted model.

        Returns
        -------
        pandas.DataFrame
            One row per check: check, observed, expected (mean over replications), low, high (central interval of
            replications), p (P(replicated ≥ observed)), verdict. Totals that the family may get wrong (zeros, answers
            at each level); for the control and every arm the segment that all others predict worst, which heavy tails
            (``shape = "student_t"``) would expect; under complete pooling the scatter around the common effect.

        Raises
        ------
        DataError
            If the fit is too large to hold predictive draws.
        """
        from bayes_hte.criticism.posterior_predictive import tabulate_predictive_checks

        return attach_verdict(self, tabulate_predictive_checks(self._completed_tree, self.question(None, ci_prob)))

    def plot_prior(
        self,
        scale: EffectScale | None = None,
        *,
        title: str | None = None,
        axis_label: str | None = None,
        percent: bool | None = None,
        unit: str | None = None,
        where: "Figure | SubFigure | None" = None,
        visuals: "Visuals | None" = None,
        theme: "Theme | None" = None,
    ) -> "Figure | SubFigure":
        """Draw what the prior allows a segment's effect to be, and what the data made of it.

        Options are those of `bayes_hte.plot.draw_prior`. Before any fit, `bayes_hte.plot_prior` draws the same without
        the posterior.
        """
        from bayes_hte.plot import from_fit

        options = _keep_given(
            title=title, axis_label=axis_label, percent=percent, unit=unit, where=where, visuals=visuals, theme=theme
        )
        return from_fit.plot_prior_and_posterior(self._completed_tree, self.question(scale), self.plan, **options)

    def report(self, path: str | Path) -> Path:
        """Write the report: one self-contained HTML file.

        Raises
        ------
        ArgumentError
            If the name has the ending of another kind of file, such as .pdf.
        OutputError
            If the file cannot be written; nothing is left behind.
        """
        from bayes_hte.report import render

        report_path = check_report_path(path)
        return write_text_atomically(
            report_path,
            render(self._tree_with_log_densities, self.question(), self.diagnosis, self.plan),
        )

    def save(self, path: str | Path, *, draws: int | None = None) -> Path:
        """Save everything as one netCDF file, all or nothing.

        Parameters
        ----------
        path : str or Path
        draws : int, optional
            Keep so many draws of all chains together, evenly spaced: for a smaller file. By default all.

        Raises
        ------
        ArgumentError
            If `draws` is no whole number, or leaves less than two draws to a chain.
        OutputError
            If the file cannot be written; nothing is left behind.

        Notes
        -----
        Draws are stored in single precision, 7 digits, and compressed. Tables of the loaded fit agree with those of
        this one to about 6 digits. Cells, the diagnosis, and the probabilities of signs that the exact engine
        computed are stored as they are.
        """
        from bayes_hte.analysis.netcdf import thin_draws, write_tree

        file_path = check_path(path, "the file")
        # All groups and not the draws alone, so that ArviZ can use the file without this package.
        saved_tree = (
            self._completed_tree
            if draws is None
            else thin_draws(add_arviz_groups(thin_draws(self._tree, draws)), draws)
        )
        return write_file_atomically(file_path, lambda temporary_path: write_tree(saved_tree, temporary_path))

    def __repr__(self) -> str:
        """Describe the fit on one line: what was fitted and whether it can be trusted."""
        return f"<Fit: {_describe_fit(self.cells, get_fitted_model(self._tree))}; diagnosis {self.diagnosis}>"

    def _describe_average(self) -> str:
        """Describe the scale and the average effect of every arm, in the numbers of the table."""
        question = self.question()
        averages = [
            f"ATE of {row['arm']} {row['effect']:.4g} ({row['ci_low']:.4g} to {row['ci_high']:.4g})"
            for row in self.ate().to_dict("records")
        ]
        intervals_text = f"{100 * question.ci_prob:.4g} % intervals"
        return f"Effects on the {question.scale} scale, with {intervals_text}: {'; '.join(averages)}"

    def _repr_html_(self) -> str:
        """Write scale, average effect, verdict and table as HTML, for notebooks."""
        # Names of outcomes, arms and segments come from files, and may hold markup.
        escaped_title = html.escape(_describe_fit(self.cells, get_fitted_model(self._tree)))
        escaped_verdict = html.escape(str(self.diagnosis))
        return (
            f"<p><b>{escaped_title}</b><br>{html.escape(self._describe_average())}<br>Diagnosis: {escaped_verdict}"
            f"<br>{html.escape(self.engine)}</p>"
            + self.table().to_html(index=False, max_rows=60, escape=True, float_format=lambda x: f"{x:.4g}")
        )


def check_report_path(path: str | Path) -> Path:
    """Check where a report is to be written: a page under another ending would be opened by the wrong program.

    Raises
    ------
    ArgumentError
        If the name has the ending of another kind of file, such as .pdf.
    """
    report_path = check_path(path, "the report")
    if report_path.suffix.lower() not in {".html", ".htm", ""}:
        raise ArgumentError(
            f"the report is an HTML page, and {report_path.name} ends in {report_path.suffix}: name it "
            f"{report_path.stem}.html, and print it from a browser to get a PDF"
        )
    return report_path


def _keep_given(max_segments: int | Literal["auto"] | None = "auto", **options: Any) -> dict[str, Any]:
    """Keep the options that were given; for all others the fit and its plan speak."""
    given = {name: value for name, value in options.items() if value is not None}
    # None is an answer here: it shows all of them.
    return given if max_segments == "auto" else given | {"max_segments": max_segments}


def attach_verdict(fit: Fit, result_table: pd.DataFrame) -> pd.DataFrame:
    """Attach the diagnosis to a table as its last column, and with the sentence on how it was computed as attrs."""
    # A table may go further than the fit it comes from: whoever reads it can see whether to trust it. Attributes are
    # lost in files and when tables are joined, a column is not.
    diagnosis = fit.diagnosis
    result_table = mark_reliability(result_table, reliable=diagnosis.ok)
    result_table.attrs["caption"] = fit.engine
    result_table.attrs["reliable"] = diagnosis.ok
    result_table.attrs["problems"] = list(diagnosis.problems)
    result_table.attrs["notes"] = list(diagnosis.notes)
    return result_table


def _describe_fit(cells: xr.Dataset, model: Model) -> str:
    """Describe in one line what was fitted: outcome, arms, number of segments, family and pooling."""
    # Published effects are differences already: their control has no name.
    segment_count, treated_arms = cells.sizes["segment"], cell_table.list_treated_arms(cells)
    arms_text = (
        f"{', '.join(treated_arms)} against {cells.attrs['control']}"
        if cells.attrs["control"]
        else ", ".join(treated_arms)
    )
    segments_text = write_count(segment_count, "segment", "segments")
    return f"{cells.attrs['outcome']}: {arms_text}, {segments_text}, {model.family}, {model.pooling} pooling"
