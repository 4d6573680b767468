"""The diagnosis passes draws that can be trusted, fails those that cannot, and names what is wrong."""

import re
from typing import Any

import example_posterior
import numpy as np
import pytest
import xarray as xr
from example_posterior import example_fit

from bayes_hte import Fit
from bayes_hte.criticism.diagnostics import MAX_RHAT, Diagnosis, diagnose_draws
from bayes_hte.inference.certificate import MIN_ESS

FAMILY_NAMES: list[Any] = ["binomial", "normal", "mean", "estimate"]


@pytest.fixture(autouse=True)
def _enough_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-hat of independent draws scatters by the inverse of their number: 4 × 1000 stay below 1.01."""
    monkeypatch.setattr(example_posterior, "DRAWS", 1000)


def redrawn(fit: Fit, **values: Any) -> xr.DataTree:
    groups = {str(name): node.to_dataset() for name, node in fit.posterior.children.items()}
    groups["posterior"] = groups["posterior"].assign(values)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(fit.posterior.attrs)
    return tree


def with_one(fit: Fit, values: np.ndarray) -> xr.DataTree:
    """Draws of one segment's effect (chain, draw) replaced."""
    effect = fit.posterior["posterior"]["effect"].copy(deep=True)
    effect[{"segment": 1, "arm": 0}] = values
    return redrawn(fit, effect=effect)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("pooling", ["partial", "none", "complete"])
def test_independent_draws_pass(family: Any, pooling: Any) -> None:
    found = diagnose_draws(example_fit(4, family, pooling=pooling).posterior)
    assert found.ok, found
    assert found.problems == ()
    assert found.rhat_max <= MAX_RHAT
    assert min(found.ess_bulk_min, found.ess_tail_min) >= MIN_ESS
    assert found.divergences == 0
    assert str(found).startswith("passed (R-hat ≤ 1.0")


def stuck() -> xr.DataTree:
    fit = example_fit(4)
    values = np.random.default_rng(0).standard_normal((4, 1000))
    values[2] += 3.0
    return with_one(fit, values)


def test_a_chain_that_is_elsewhere_fails() -> None:
    found = diagnose_draws(stuck())
    assert not found.ok
    assert found.rhat_max > 1.1
    assert found.problems[0].startswith("The chains disagree about effect[device 2, email]: R-hat is 1.")
    assert str(found).startswith("FAILED (R-hat ≤ 1.")


def test_a_disagreement_names_the_quantity() -> None:
    assert "effect[device 2, email]" in diagnose_draws(stuck()).problems[0]


def test_few_effective_draws_fail_and_name_the_quantity() -> None:
    values = np.repeat(np.random.default_rng(1).standard_normal((4, 50)), 20, axis=1)
    found = diagnose_draws(with_one(example_fit(4), values))
    assert not found.ok
    assert found.worst == "effect[device 2, email]"
    told = next(line for line in found.problems if "effective" in line)
    assert re.fullmatch(r"Only \d+ effective draws of effect\[device 2, email\], 400 are needed: raise draws\.", told)


def with_divergences(tree: xr.DataTree, where: dict[str, Any]) -> xr.DataTree:
    """A copy of a fit's tree in which some draws diverged: the tree itself cannot be changed."""
    copied = tree.copy(deep=True)
    diverging = copied["sample_stats"]["diverging"].copy(data=copied["sample_stats"]["diverging"].values.copy())
    diverging[where] = True
    copied["sample_stats"] = xr.DataTree(copied["sample_stats"].to_dataset().assign(diverging=diverging))
    return copied


def test_divergences_fail_whatever_the_rest_says() -> None:
    tree = with_divergences(example_fit(4).posterior, {"chain": 1, "draw": slice(0, 3)})
    found = diagnose_draws(tree)
    assert (found.ok, found.divergences) == (False, 3)
    (problem,) = found.problems
    assert problem.startswith("3 divergent transitions")


def test_a_quantity_that_never_moves_fails() -> None:
    with np.errstate(all="ignore"):
        found = diagnose_draws(with_one(example_fit(4), np.full((4, 1000), 0.3)))
    assert not found.ok
    assert found.rhat_max == float("inf")


def test_a_quantity_that_never_moves_fails_without_a_warning_from_numpy() -> None:
    assert not diagnose_draws(with_one(example_fit(4), np.full((4, 1000), 0.3))).ok


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_draws_that_are_not_numbers_fail(bad: float) -> None:
    values = np.random.default_rng(0).standard_normal((4, 1000))
    values[0, 0] = bad
    with np.errstate(all="ignore"):
        assert not diagnose_draws(with_one(example_fit(4), values)).ok


def test_all_that_fails_is_told() -> None:
    tree = with_divergences(stuck(), {"chain": 0, "draw": 0})
    found = diagnose_draws(tree)
    assert len(found.problems) == 3
    assert all(problem in str(found) for problem in found.problems)


def test_the_average_effect_is_checked_too() -> None:
    """Segments that mix alone but lean together in one chain: only their average shows it."""
    fit = example_fit(4, "estimate")
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((4, 1000, 4, 1))
    share = fit.cells["n"].values[:, 0] / fit.cells["n"].values.sum()
    noise -= noise.mean(axis=2, keepdims=True)
    noise *= 30.0
    noise -= (noise * share[:, None]).sum(axis=2, keepdims=True)  # large segment noise that cancels in the ATE
    lean = 0.1 * rng.standard_normal((4, 1000, 1, 1)) + np.array([0.0, 0.0, 0.0, 0.5])[:, None, None, None]
    effect = fit.posterior["posterior"]["effect"].copy(data=noise + lean)
    found = diagnose_draws(redrawn(fit, effect=effect))
    assert not found.ok
    assert found.worst.startswith("ate[")


def test_offsets_may_mix_worse() -> None:
    fit = example_fit(4)
    offset = fit.posterior["posterior"]["effect"].copy(data=np.zeros((4, 1000, 4, 1)))
    assert diagnose_draws(redrawn(fit, effect_offset=offset)).ok


def test_a_sampler_without_divergences_is_no_reason_to_fail() -> None:
    tree = example_fit(4).posterior
    tree["sample_stats"] = xr.DataTree(tree["sample_stats"].to_dataset().drop_vars("diverging"))
    assert diagnose_draws(tree).divergences == 0


def test_a_diagnosis_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Diagnosis(True, (), 1.0, 500.0, 500.0, 0, "effect").ok = False  # type: ignore[misc]
