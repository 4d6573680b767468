"""`Fit`: a posterior and the questions it answers, and how it is read back from a file."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from bayes_hte import answers, marginal, schema, summary
from bayes_hte.answers import Best
from bayes_hte.asked import path_of
from bayes_hte.diagnose import Diagnosis
from bayes_hte.effects import Weights, cells_of, engine_of, known_model, model_of
from bayes_hte.errors import OutputError
from bayes_hte.groups import complete
from bayes_hte.model import build, problem
from bayes_hte.schema import Scale
from bayes_hte.spec import Model, Plan
from bayes_hte.storage import write, write_text
from bayes_hte.summary import Against, Question

if TYPE_CHECKING:
    import pymc as pm
    from matplotlib.figure import Figure, SubFigure

FORMAT = "bayes_hte fit 1"
"""Written into every saved fit, so that a file of another kind or time is recognised."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A posterior and the questions it answers.

    Attributes
    ----------
    core : xarray.DataTree
        The draws, what the sampler says of itself, and the cells: everything is computed from it.

    Examples
    --------
    >>> import pandas as pd, bayes_hte as hte
    >>> schools = pd.DataFrame({"school": ["A", "B", "C"], "y": [28.0, 8.0, -3.0], "se": [15.0, 10.0, 16.0]})
    >>> cells = hte.cells.from_estimates(schools, segments=["school"], estimate="y", se="se")
    >>> fit = hte.fit(cells, hte.read_model("published-estimates"), draws=4000, seed=1)  # doctest: +SKIP
    >>> fit.table()[["school", "effect", "p_positive"]]  # doctest: +SKIP
    """

    core: xr.DataTree

    @property
    def posterior(self) -> xr.DataTree:
        """Every group that ArviZ knows: every ArviZ function works on it.

        Groups posterior, sample_stats, log_likelihood, log_prior, posterior_predictive, prior, prior_predictive,
        observed_data, constant_data and cells; sign where the fast engine was used. What follows from the draws is
        computed when it is first asked for; log-likelihoods and predictive draws of more than 20 million
        numbers are left out.
        """
        return complete(self.core)

    @property
    def cells(self) -> xr.Dataset:
        """The cell table, dims (segment, arm)."""
        return cells_of(self.core)

    @property
    def spec(self) -> Model:
        """What was believed, as the model file states it.

        Raises
        ------
        ModelError
            If only draws of a model of one's own are known.
        """
        return known_model(self.core, "what was believed")

    @property
    def plan(self) -> Plan | None:
        """What was asked, if the fit came from a plan."""
        text = self.core.attrs.get("plan")
        return None if text is None else Plan.model_validate_json(text)

    @property
    def model(self) -> "pm.Model":
        """The PyMC model of this fit, built anew."""
        return build(problem(self.cells, known_model(self.core, "the PyMC model")))

    @property
    def diagnosis(self) -> Diagnosis:
        """Whether the draws can be trusted; computed when the fit was made."""
        found = json.loads(self.core.attrs["diagnosis"])
        return Diagnosis(**{**found, "problems": tuple(found["problems"])})

    @property
    def engine(self) -> str:
        """Which engine drew the posterior, and why, as a sentence."""
        return engine_of(self.core)

    def question(self, scale: Scale | None = None, ci_prob: float | None = None, rope: float | None = None) -> Question:
        """Fill in what is not stated from the plan, else absolute effects and 95 % intervals."""
        plan = self.plan
        if plan is None:
            better = "lower_is_better" not in self.core.attrs
            return Question(scale or "absolute", 0.95 if ci_prob is None else ci_prob, rope, higher_is_better=better)
        asked = plan.report
        wanted = scale or asked.scale
        return Question(
            scale=wanted,
            ci_prob=asked.ci_prob if ci_prob is None else ci_prob,
            # The plan's smallest effect that matters is a number on the plan's own scale.
            rope=asked.rope if rope is None and wanted == asked.scale else rope,
            higher_is_better=asked.higher_is_better,
        )

    def table(
        self,
        scale: Scale | None = None,
        ci_prob: float | None = None,
        *,
        rope: float | None = None,
        detail: bool = False,
    ) -> pd.DataFrame:
        """Every segment's effect.

        Parameters
        ----------
        scale : {"absolute", "relative", "link"}, optional
            Difference in means (or probability), that divided by the control's mean, or log-odds /
            the outcome itself. By default the plan's, else absolute.
        ci_prob : float, optional
            Probability of the intervals; by default the plan's, else 0.95.
        rope : float, optional
            The smallest effect that matters, on `scale`: adds p_rope, p_benefit and p_harm.
        detail : bool
            Add effect_mcse and p_mcse (Monte-Carlo standard errors), pooling_low and pooling_high
            (interval of the pooling factor), complete and complete_se (the completely pooled estimate).

        Returns
        -------
        pandas.DataFrame
            One row per segment and arm: a column per dimension, arm, n_control, n_treated, raw,
            raw_se (the segment on its own), effect (posterior mean), sd, ci_low, ci_high,
            p_positive, p_negative, pooling (share of the estimate that is borrowed). ``attrs["reliable"]``
            is False, and ``attrs["problems"]`` says why, when the diagnosis failed.

        Raises
        ------
        DataError
            If scale, ci_prob or rope make no sense.
        ModelError
            If the scale needs a control mean that the family does not have.
        """
        found = summary.table(self.core, self.question(scale, ci_prob, rope), detail=detail)
        return self._marked(found)

    def ate(
        self, scale: Scale | None = None, ci_prob: float | None = None, *, weights: Weights | None = None
    ) -> pd.DataFrame:
        """The effect averaged over segments with the population's shares, one row per arm.

        Parameters
        ----------
        scale, ci_prob
            As in `table`.
        weights : mapping or pandas.Series, optional
            Population size by segment label; by default the units in all arms of the experiment.

        Returns
        -------
        pandas.DataFrame
            arm, n_control, n_treated, effect, sd, ci_low, ci_high, p_positive, p_negative, p_mcse.

        Notes
        -----
        It differs from ``effect_mean`` in `heterogeneity`, the centre that segments shrink to: that is
        the mean over an imagined population of segments, each counted once.
        """
        return self._marked(summary.ate(self.core, self.question(scale, ci_prob), weights))

    def heterogeneity(
        self, scale: Scale | None = None, ci_prob: float | None = None, *, rope: float | None = None
    ) -> pd.DataFrame:
        """How much effects differ between segments.

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
        return self._marked(answers.heterogeneity(self.core, self.question(scale, ci_prob, rope)))

    def variance_shares(self, ci_prob: float | None = None, *, weights: Weights | None = None) -> pd.DataFrame:
        """Which dimension drives the differences: how the variance of effects divides among a model's parts.

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
        return self._marked(marginal.variance_shares(self.core, self.question(None, ci_prob), weights))

    def marginal(
        self,
        dimension: str,
        scale: Scale | None = None,
        ci_prob: float | None = None,
        *,
        weights: Weights | None = None,
    ) -> pd.DataFrame:
        """Effects per level of a dimension: those of its segments, averaged with the population's shares.

        Returns
        -------
        pandas.DataFrame
            level, arm, n_control, n_treated, effect, sd, ci_low, ci_high, p_positive, p_negative, and the columns of a
            rope where the plan states one.

        Raises
        ------
        DataError
            If there is no such dimension, or a level has no weight.
        """
        return self._marked(marginal.marginal(self.core, dimension, self.question(scale, ci_prob), weights))

    def ranks(
        self, scale: Scale | None = None, ci_prob: float | None = None, *, best: Best | None = None
    ) -> pd.DataFrame:
        """Where every segment stands among all segments, by its effect; rank 1 is the best.

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
        return self._marked(answers.ranks(self.core, self.question(scale, ci_prob), best))

    def best_arm(self, scale: Scale | None = None) -> pd.DataFrame:
        """Which arm is best in each segment, the control included.

        Returns
        -------
        pandas.DataFrame
            A column per dimension, arm, effect (posterior mean; 0 for the control), p_best (probability that the arm
            has the best mean outcome), p_mcse, expected_loss (how much better the best arm is expected to be).
        """
        return self._marked(answers.best_arm(self.core, self.question(scale)))

    def contrasts(
        self,
        against: Against = "rest",
        scale: Scale | None = None,
        ci_prob: float | None = None,
        *,
        weights: Weights | None = None,
    ) -> pd.DataFrame:
        """Differences between effects, from joint draws.

        Parameters
        ----------
        against : {"rest", "ate", "pairs"}
            Each segment less the average of all others, less the ATE, or every pair.

        Returns
        -------
        pandas.DataFrame
            arm, segment, against, difference, sd, ci_low, ci_high, p_positive, p_negative.
        """
        return self._marked(summary.contrasts(self.core, self.question(scale, ci_prob), against, weights))

    def predict_new_segment(
        self,
        scale: Scale | None = None,
        ci_prob: float | None = None,
        *,
        where: Mapping[str, str] | None = None,
        covariates: Mapping[str, float] | None = None,
    ) -> pd.DataFrame:
        """What to expect in a segment that was not in the experiment, one row per arm.

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
            arm, effect, sd, ci_low, ci_high, p_positive, p_negative.

        Raises
        ------
        DataError
            If a dimension, level or covariate is not known.
        ModelError
            If effects were not pooled.
        """
        return self._marked(
            summary.predict_new_segment(
                self.core,
                self.question(scale, ci_prob),
                seed=int(self.core.attrs["seed"]),
                where=where,
                covariates=covariates,
            )
        )

    def survival(self, times: Sequence[float] | float | None = None, ci_prob: float | None = None) -> pd.DataFrame:
        """Survival of every segment under control and treatment at stated times.

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
            survival, treated minus control), sd, ci_low, ci_high, p_positive, p_negative. Hazard ratios are the
            relative scale of `table`, plus one.

        Raises
        ------
        ModelError
            If the outcome is not survival.
        DataError
            If a time is beyond the follow-up.
        """
        from bayes_hte.survival import survival

        return self._marked(survival(self.core, times, self.question(None, ci_prob)))

    def loso(self) -> pd.DataFrame:
        """How well the other segments predict each one: leave-one-segment-out log scores.

        Returns
        -------
        pandas.DataFrame
            One row per segment: a column per dimension, elpd (log density of the segment's data given other
            segments' data), mcse (Monte-Carlo standard error of it; 0 where it is exact), pareto_k (tail of the
            importance weights; above 0.7 the segment was left out and the others fitted again).
            ``attrs["elpd"]`` is the sum, ``attrs["se"]`` its standard error over segments.

        Raises
        ------
        DataError
            If there is one segment.

        Notes
        -----
        A segment's own effect and baseline are integrated out: the score asks whether a segment like it was to be
        expected. It is the log of a mean density, not the mean of log densities. Structures beyond the exact engine
        are sampled again ten times, each time without a tenth of the segments; that takes minutes.
        """
        return self._marked(_above("compare").scores(self))

    def compare(self, others: "Mapping[str, Model | str | Path | Fit] | None" = None) -> pd.DataFrame:
        """Which model predicts segments best, by leave-one-segment-out scores.

        Parameters
        ----------
        others : mapping, optional
            Name -> model, model file, or fit of the same cells. By default the same model without pooling, with
            partial and with complete pooling.

        Returns
        -------
        pandas.DataFrame
            One row per model, best first: model, elpd (sum of `loso`), se, elpd_difference (to the best),
            se_difference (of pointwise differences), mcse, weight (stacking of predictive densities), pareto_k (the
            largest), reliable.

        Raises
        ------
        DataError
            If there is one segment, or a fit of other cells.
        ModelError
            If a model does not fit the cells, or predicts other statistics of them.

        Notes
        -----
        A difference within twice its standard error says that the data do not decide.
        """
        return self._marked(_above("compare").compare_models(self, others))

    def sensitivity(self, scale: Scale | None = None) -> pd.DataFrame:
        """How much answers would move if the priors, or the data, counted a little more or less.

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
        from bayes_hte.sensitivity import sensitivity

        return self._marked(sensitivity(self.core, self.question(scale)))

    def given_tau(self, scale: Scale | None = None) -> pd.DataFrame:
        """Every segment's effect if the between-segment SD were known: the numbers behind `tau_trace`.

        The scale is that of the report, unless it needs parameters that all segments share, as counts, ordered scales
        and survival do on the absolute one: then it is the link scale.

        Returns
        -------
        pandas.DataFrame
            One row per arm, segment and value of tau: a column per dimension, arm, tau (link scale), effect (its
            posterior mean at that tau, on `scale`), density (posterior density of tau).

        Raises
        ------
        ModelError
            If effects are not partially pooled, or the structure is beyond the exact engine.
        """
        from bayes_hte.given_tau import given_tau, known_scale

        return self._marked(given_tau(self.core, scale or known_scale(self.core, self.question(scale).scale)))

    def tau_trace(self, scale: Scale | None = None, **options: Any) -> "Figure | SubFigure":
        """Every segment's effect as a function of the between-segment SD, over the posterior of that SD.

        The single picture of partial pooling: on the left all segments have the common effect, on the right each
        has its own estimate, and the posterior beneath says which part matters. `options` are those of
        `bayes_hte.plot.trace`; `given_tau` has the numbers.

        Raises
        ------
        ModelError
            If effects are not partially pooled, or the structure is beyond the exact engine.
        """
        from bayes_hte import views
        from bayes_hte.given_tau import known_scale

        scale = scale or known_scale(self.core, self.question(scale).scale)
        return views.trace(self.core, self.question(scale), self.plan, self.given_tau(scale), **options)

    def plot_forest(self, scale: Scale | None = None, **options: Any) -> "Figure | SubFigure":
        """The forest plot; `options` are those of `bayes_hte.plot.forest`."""
        from bayes_hte import views

        return views.forest(self.core, self.question(scale), self.plan, **options)

    def plot_shrinkage(self, scale: Scale | None = None, **options: Any) -> "Figure | SubFigure":
        """Raw estimates moving to pooled ones; `options` are those of `bayes_hte.plot.shrinkage`."""
        from bayes_hte import views

        return views.shrinkage(self.core, self.question(scale), self.plan, **options)

    def predictive_checks(self, ci_prob: float | None = None) -> pd.DataFrame:
        """Whether data like these were to be expected under the fitted model.

        Returns
        -------
        pandas.DataFrame
            One row per check: check, observed, expected (mean over replications), low, high (central interval of
            replications), p (P(replicated ≥ observed)), verdict. The distances of all cells; totals that the family
            may get wrong (zeros, answers at each level); and for every arm the segment furthest from the common
            distribution of effects, which heavy tails (``shape = "student_t"``) would expect.

        Raises
        ------
        DataError
            If the fit is too large to hold predictive draws.
        """
        from bayes_hte.predictive import predictive_checks

        return self._marked(predictive_checks(self.posterior, self.question(None, ci_prob)))

    def plot_prior(self, scale: Scale | None = None, **options: Any) -> "Figure | SubFigure":
        """What the prior allows a segment's effect to be, and what the data made of it.

        `options` are those of `bayes_hte.plot.prior`. Before any fit, `bayes_hte.plot_prior` draws the same without
        the posterior.
        """
        from bayes_hte import views

        return views.prior(self.posterior, self.question(scale), self.plan, **options)

    def report(self, path: str | Path) -> Path:
        """Write the report: one self-contained HTML file.

        Raises
        ------
        OutputError
            If the file cannot be written; nothing is left behind.
        """
        from bayes_hte.report import render

        return write_text(
            path_of(path, "the report", OutputError), render(self.core, self.question(), self.diagnosis, self.plan)
        )

    def save(self, path: str | Path) -> Path:
        """Save everything as one netCDF file, all or nothing.

        Raises
        ------
        OutputError
            If the file cannot be written; nothing is left behind.
        """
        from bayes_hte.netcdf import write_tree

        return write(path_of(path, "the file", OutputError), lambda target: write_tree(self.posterior, target))

    def _marked(self, found: pd.DataFrame) -> pd.DataFrame:
        """A table carries the verdict with it, and says how it was computed."""
        diagnosis = self.diagnosis
        found.attrs["caption"] = self.engine
        found.attrs["reliable"] = diagnosis.ok
        found.attrs["problems"] = list(diagnosis.problems)
        return found

    def __repr__(self) -> str:
        """One line: what was fitted and whether it can be trusted."""
        return f"<Fit: {_headline(self.cells, model_of(self.core))}; diagnosis {self.diagnosis}>"

    def _repr_html_(self) -> str:
        """Verdict and table, for notebooks."""
        title, verdict = html.escape(_headline(self.cells, model_of(self.core))), html.escape(str(self.diagnosis))
        return f"<p><b>{title}</b><br>Diagnosis: {verdict}<br>{html.escape(self.engine)}</p>" + self.table().to_html(
            index=False, max_rows=60, escape=True, float_format=lambda x: f"{x:.4g}"
        )


def _above(module: str) -> Any:
    """A module that fits models, found when it is asked for: it imports this one, so this one cannot import it."""
    return import_module(f"bayes_hte.{module}")


def _headline(cells: xr.Dataset, model: Model) -> str:
    segments, arms = cells.sizes["segment"], schema.treated_arms(cells)
    versus = f"{', '.join(arms)} against {cells.attrs['control']}" if cells.attrs["control"] else ", ".join(arms)
    return f"{cells.attrs['outcome']}: {versus}, {segments} segments, {model.family}, {model.pooling} pooling"
