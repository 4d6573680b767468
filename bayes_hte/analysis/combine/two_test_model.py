"""Extend a model of segments by tests: what all tests share, what a test moves everywhere, and what in one segment.

    effect[s, t] = effect[s] + shift[t] + deviation[s, t]

    effect[s]          as the model of one test has it: common effect, levels, and the segment's own part
    shift[t]           ~ Normal(0, between-test SD)
    deviation[s, t]    ~ Normal(0, between-test SD within segments)

It is a crossed model of the cells segment × test, in which the segment itself is one term of ``by``, so that engines,
priors and checks are those of every crossed model. As both between-test SDs go to 0, it becomes the model of one test,
of the data of all tests together.
"""

from bayes_hte.errors import ArgumentError, ModelError
from bayes_hte.spec import Model
from bayes_hte.spec.distributions import Distribution, HalfNormal, is_positive, rescale_distribution
from bayes_hte.spec.model import Pool

BETWEEN_TESTS_SHARE = 0.5
"""Of the prior of the between-segment SD: tests of one change are expected to differ half as much as segments do."""


def choose_test_prior(model: Model, between_tests: Distribution | float | None) -> Distribution:
    """Choose the prior of both between-test SDs: the stated one, or half as wide as that of the between-segment SD.

    Raises
    ------
    ArgumentError
        If it is no positive number and no distribution of a standard deviation.
    """
    if between_tests is None and model.effect.between is not None:
        # In SDs of the link scale, whatever the outcome: the model's own prior says how large effects' differences are.
        return rescale_distribution(model.effect.between, BETWEEN_TESTS_SHARE)
    if isinstance(between_tests, bool) or (isinstance(between_tests, int | float) and not 0 < between_tests < 1e70):
        raise ArgumentError(
            f"between_tests is the scale of the SD between tests, a number above 0, not {between_tests!r}; where "
            "nothing can differ, fit the merged cells: hte.fit(hte.cells.merge(first.cells, second.cells), model)"
        )
    if isinstance(between_tests, int | float):
        return HalfNormal(sigma=float(between_tests))
    if between_tests is None or not is_positive(between_tests):
        raise ArgumentError(
            f"between_tests is the prior of a standard deviation, and {between_tests!r} can be negative: give "
            "HalfNormal(sigma), or a number that is its scale"
        )
    return between_tests


def require_combinable(model: Model) -> Model:
    """Return a model to which tests can be added, or say why they cannot.

    Raises
    ------
    ModelError
        If segments are not partially pooled around a centre by normal parts that add up.
    """
    effect = model.effect
    obstacles = {
        f'family "{model.family}" has two parts': model.amount is not None,
        f'pooling = "{model.pooling}"': model.pooling != "partial",
        f'shape = "{effect.shape}"': effect.shape != "normal",
        "a correlation with the baseline": effect.correlation is not None,
        "strata": effect.strata is not None,
        "covariates": bool(effect.covariates),
    }
    found = [name for name, is_there in obstacles.items() if is_there]
    if found:
        raise ModelError(
            f"two tests are combined by a model of normal parts that add up, and this model has {found[0]}; give "
            "another one of the same outcome as model=, partially pooled and without it"
        )
    return model


def extend_by_tests(model: Model, dimensions: list[str], test_dimension: str, test_prior: Distribution) -> Model:
    """Extend a model of segments, whose dimensions are named, to the cells segment × test.

    Parameters
    ----------
    model : Model
        That `require_combinable` let through.
    dimensions : list of str
        Of the segments.
    test_dimension : str
        Whose levels are the tests.
    test_prior : Distribution
        Of both between-test SDs of effects. Those of baselines have the prior of the baseline's between-segment SD:
        who comes, and when, moves these as much as segments differ.
    """
    segment_term = name_segment_term(dimensions)
    updates: dict[str, Pool] = {"effect": _extend_pool(model.effect, segment_term, test_dimension, test_prior)}
    baseline = model.baseline
    if baseline is not None and baseline.between is not None:
        updates["baseline"] = _extend_pool(baseline, segment_term, test_dimension, baseline.between)
    return model.model_copy(update=updates)


def name_segment_term(dimensions: list[str]) -> str:
    """Name the term of ``by`` whose levels are the segments: ``device:plan``."""
    return ":".join(dimensions)


def _extend_pool(pool: Pool, segment_term: str, test_dimension: str, test_prior: Distribution) -> Pool:
    terms = [*pool.by, *([segment_term] if segment_term not in pool.by else []), test_dimension]
    # What was left over between segments is now a term, and what is left over is between tests within a segment.
    level_priors = {term: pool.get_level_prior(term) for term in pool.by} | {
        segment_term: pool.between,
        test_dimension: test_prior,
    }
    return pool.model_copy(
        update={"by": tuple(terms), "by_between": None, "level_between": level_priors, "between": test_prior}
    )
