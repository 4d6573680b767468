"""`Fit`: names of before lead to those of now."""

import pymc as pm
import pytest
from example_posterior import example_fit

import bayes_hte as hte


@pytest.mark.parametrize(
    ("old_name", "message"),
    [
        ("core", "fit.core is now fit.tree"),
        ("spec", "fit.spec is now fit.model"),
        ("tau_trace", "fit.tau_trace(...) is now fit.plot_tau_trace(...)"),
        ("compare", "fit.compare(...) is now hte.compare(fit, ...)"),
        ("loso", "fit.loso() is now hte.loso(fit)"),
    ],
)
def test_a_name_of_before_says_the_name_of_now(old_name: str, message: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(example_fit(2), old_name)
    assert str(caught.value) == message


def test_a_name_that_never_was_is_the_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="'Fit' object has no attribute 'tabel'"):
        example_fit(2).tabel  # type: ignore[attr-defined] # noqa: B018


def test_model_is_the_model_as_stated_and_pymc_model_builds_it() -> None:
    fit = example_fit(3)
    assert isinstance(fit.model, hte.Model)
    assert isinstance(fit.pymc_model(), pm.Model)


@pytest.mark.parametrize("ask", [hte.compare, hte.loso])
def test_questions_about_a_fit_refuse_what_is_none(ask: object) -> None:
    with pytest.raises(ValueError, match=r"fit is an xarray.Dataset; give what hte\.fit or hte\.load returned"):
        ask(example_fit(2).cells)  # type: ignore[operator]
