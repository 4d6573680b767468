"""Two tests in one fit: what it equals where tests cannot differ, closed forms where SDs are known, and refusals."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import example
from example_structures import stated
from numpy.typing import NDArray

import bayes_hte as hte
from bayes_hte.analysis.combine.two_test_model import extend_by_tests
from bayes_hte.cells.combine.stack import stack_tests
from bayes_hte.decisions.repetition.between_tests import collect_test_effects
from bayes_hte.errors import HteError
from bayes_hte.spec.distributions import HalfNormal, Uniform

MC_SDS = 4.5
"""Standard errors that two independent estimates may lie apart: a false alarm in 150,000 comparisons."""
FIRST, FIRST_SE = np.array([0.30, 0.10, -0.20, 0.40]), np.array([0.15, 0.10, 0.20, 0.30])
SECOND, SECOND_SE = np.array([0.10, 0.25, 0.05, 0.30]), np.array([0.10, 0.20, 0.15, 0.25])


def published(effects: NDArray[Any], errors: NDArray[Any], segments: str) -> xr.Dataset:
    table = pd.DataFrame({"site": list(segments), "y": effects, "se": errors})
    return hte.cells.from_estimates(table, segments=["site"], estimate="y", se="se")


def known_sd(value: float) -> Uniform:
    """A prior that leaves a positive number no room."""
    return Uniform(lower=value, upper=value * (1 + 1e-6))


def estimate_model(between: Any = None) -> hte.Model:
    effect = {"mean": {"dist": "Normal", "sigma": 0.5}, "between": between or HalfNormal(sigma=0.3)}
    return hte.Model.model_validate({"family": "estimate", "effect": effect})


def fit_estimates(effects: Any, errors: Any, segments: str = "ABCD", model: hte.Model | None = None) -> hte.Fit:
    return hte.fit(published(effects, errors, segments), model or estimate_model(), seed=1)


def assert_same_posterior(one: hte.Fit, other: hte.Fit) -> None:
    """Means and SDs of effects agree within their Monte-Carlo error, at half as many points as draws."""
    ones, others = one.table("link"), other.table("link")
    error = np.hypot(ones["sd"], others["sd"]) / np.sqrt(1000)
    assert (abs(ones["effect"] - others["effect"]) < MC_SDS * error).all()
    assert (abs(ones["sd"] / others["sd"] - 1) < MC_SDS / np.sqrt(1000)).all()


def test_without_an_sd_between_tests_it_is_one_fit_of_the_pooled_estimates() -> None:
    both = hte.combine(fit_estimates(FIRST, FIRST_SE), fit_estimates(SECOND, SECOND_SE), between_tests=1e-5)
    weights = FIRST_SE**-2.0, SECOND_SE**-2.0
    pooled = (weights[0] * FIRST + weights[1] * SECOND) / (weights[0] + weights[1])
    assert_same_posterior(both, fit_estimates(pooled, (weights[0] + weights[1]) ** -0.5))
    np.testing.assert_allclose(both.table("link")["raw"], pooled, rtol=1e-12)


@pytest.mark.parametrize("family", ["binomial", "poisson", "normal", "ordinal"])
def test_where_tests_differ_in_nothing_the_extended_model_is_that_of_the_merged_rows(family: Any) -> None:
    cells = [example(family, segments=3, seed=seed) for seed in (1, 2)]
    model = stated(family, {})
    cells = [table.drop_vars(["covariates", "covariate"]) for table in cells]
    dims = ["device", "plan"]
    resolved = hte.Model.model_validate_json(hte.fit(hte.cells.merge(*cells), model).tree.attrs["resolved_model"])
    tiny = HalfNormal(sigma=1e-5)
    extended = extend_by_tests(resolved, dims, "test", tiny)
    assert extended.baseline is not None
    levels = {**dict(extended.baseline.level_between or {}), "test": tiny}
    same_baseline = extended.baseline.model_copy(update={"between": tiny, "level_between": levels})
    extended = extended.model_copy(update={"baseline": same_baseline})
    stacked = hte.fit(stack_tests({"a": cells[0], "b": cells[1]}, "test"), extended).effects("link")
    merged = hte.fit(hte.cells.merge(*cells), model).effects("link")
    for position, segment in enumerate(merged["segment"].values):
        ones, others = stacked.sel(segment=f"{segment} · a"), merged.isel(segment=position)
        error = np.hypot(ones.std(("chain", "draw")), others.std(("chain", "draw"))) / np.sqrt(600)
        assert (abs(ones.mean(("chain", "draw")) - others.mean(("chain", "draw"))) < MC_SDS * error).all()


def test_the_first_posterior_as_prior_and_the_data_of_the_second_give_the_same() -> None:
    first, second = fit_estimates(FIRST, FIRST_SE), fit_estimates(SECOND, SECOND_SE)
    both = hte.combine(first, second, between_tests=1e-5)
    draws = first.effects("link").stack(sample=("chain", "draw")).squeeze("arm").transpose("sample", "segment").values
    # Weight of a draw of the first posterior = likelihood of the second data
    weights = np.exp(-0.5 * (((draws - SECOND) / SECOND_SE) ** 2).sum(1))
    weights /= weights.sum()
    updated = weights @ draws
    spread = np.sqrt(weights @ (draws - updated) ** 2)
    error = spread * np.hypot((weights**2).sum() ** 0.5, 1000**-0.5)
    assert (abs(both.table("link")["effect"].to_numpy() - updated) < MC_SDS * error).all()


@pytest.mark.parametrize("second_segments", ["ABCD", "BCDE"])
def test_known_sds_give_the_closed_form(second_segments: str) -> None:
    between, tests = 0.3, 0.2
    model = estimate_model(known_sd(between))
    both = hte.combine(
        fit_estimates(FIRST, FIRST_SE, model=model),
        fit_estimates(SECOND, SECOND_SE, second_segments, model),
        between_tests=known_sd(tests),
    )
    keys = [(s, 0) for s in "ABCD"] + [(s, 1) for s in second_segments]
    y, variance = np.concatenate([FIRST, SECOND]), np.concatenate([FIRST_SE, SECOND_SE]) ** 2
    same_segment = np.array([[float(a == b) for b, _ in keys] for a, _ in keys])
    same_test = np.array([[float(a == b) for _, b in keys] for _, a in keys])
    # Cov of effects = mean² + between² [same segment] + tests² [same test] + tests² [same cell]
    prior = 0.25 + between**2 * same_segment + tests**2 * (same_test + np.eye(len(keys)))
    gain = prior @ np.linalg.inv(prior + np.diag(variance))
    centre, covariance = gain @ y, prior - gain @ prior
    table = both.table("link").set_index("site")
    for segment in table.index:
        members = np.array([float(key[0] == segment) for key in keys])
        shares = members / variance / (members / variance).sum()
        sd = float(np.sqrt(shares @ covariance @ shares))
        assert table.loc[segment, "effect"] == pytest.approx(shares @ centre, abs=MC_SDS * sd / np.sqrt(2000))
        assert table.loc[segment, "sd"] == pytest.approx(sd, rel=MC_SDS / np.sqrt(2 * 2000))


def test_a_third_test_is_as_uncertain_as_the_sd_between_tests_says() -> None:
    errors = np.full(4, 1e-3)
    both = hte.combine(
        fit_estimates(FIRST, errors), fit_estimates(FIRST, errors), between_tests=known_sd(0.2)
    ).compare_tests("link")
    # Each segment is known, but for the shift and the deviation of two tests: the next has its own, and theirs halved.
    sd = np.sqrt(2 * 0.2**2 * 1.5)
    width = (both["next_high"] - both["next_low"]) / (2 * 1.96)
    assert (width < 1.15 * sd).all()
    assert (width > np.sqrt(2) * 0.2 * 0.9).all()


@pytest.mark.parametrize(
    "family", ["binomial", "mean", "poisson", "negative_binomial", "ordinal", "piecewise_exponential"]
)
def test_every_family_with_several_arms_has_tables_a_report_and_a_file(family: Any, tmp_path: Any) -> None:
    arms = ("control", "email", "sms")
    first, second = (
        hte.fit(example(family, segments=3, arms=arms, seed=seed), stated(family, {}), seed=1) for seed in (1, 2)
    )
    both = hte.combine(first, second, names=("spring", "autumn"))
    table, comparison = both.table(), both.compare_tests()
    assert len(table) == len(comparison) == 6
    assert np.isfinite(table[["effect", "sd", "pooling"]].to_numpy(dtype=float)).all()
    assert np.isfinite(table[["raw", "raw_se"]].to_numpy(dtype=float)[:-1]).all()  # the last was never tested
    assert (table["sd"] > 0).all()
    assert both.predict_new_segment()["sd"].gt(0).all()
    loaded = hte.load(both.save(tmp_path / "both.nc"))
    np.testing.assert_allclose(loaded.compare_tests()["difference"], comparison["difference"], atol=1e-5)
    assert both.report(tmp_path / "both.html").read_text().count("spring") > 0


def test_segments_of_one_test_are_kept_and_named() -> None:
    both = hte.combine(fit_estimates(FIRST, FIRST_SE), fit_estimates(SECOND, SECOND_SE, "BCDE"))
    table = both.compare_tests().set_index("site")
    assert list(table.index) == ["A", "B", "C", "D", "E"]
    assert "did not have both arms" in table.loc["A", "why"]
    assert np.isnan(table.loc["A", "second"])
    assert np.isfinite(table.loc["E", ["second", "next"]].astype(float)).all()


def test_tests_that_disagree_are_named_and_agreeing_ones_are_not() -> None:
    errors = np.full(4, 0.05)
    moved = FIRST + np.array([0.0, 0.9, 0.0, 0.0])
    both = hte.combine(fit_estimates(FIRST, errors), fit_estimates(moved, errors))
    table = both.compare_tests()
    assert table["disagree"].tolist() == [False, True, False, False]
    assert table["raw_p"][1] < 1e-6
    assert any(note.startswith("B · ") and "The tests disagree" in note for note in both.diagnosis.notes)
    again = hte.combine(fit_estimates(FIRST, errors), fit_estimates(FIRST, errors))
    assert not again.compare_tests()["disagree"].any()
    assert again.compare_tests().attrs["between_tests"]["sd"] < table.attrs["between_tests"]["sd"]


def test_what_two_tests_say_is_written_in_the_units_of_the_effects_and_on_the_probable_side() -> None:
    first, second = (
        hte.fit(example("binomial", segments=3, seed=seed), stated("binomial", {}), seed=1) for seed in (1, 2)
    )
    both = hte.combine(first, second)
    by_test = collect_test_effects(both.tree, "absolute").by_test
    is_larger = (by_test[1] > by_test[0]).mean(("chain", "draw")).values.ravel() > 0.5
    for row, larger in zip(both.compare_tests().dropna().to_dict("records"), is_larger, strict=False):
        assert f"{100 * row['first']:.3g} percentage points in 'first', ".replace("-", "−") in row["why"]
        assert f"the second is {'larger' if larger else 'smaller'} with probability" in row["why"]
    assert not both.compare_tests("link")["why"].str.contains("percentage").any()


def test_other_shares_of_the_arms_in_the_second_test_move_no_raw_estimate() -> None:
    """A sum of rows would: the second test has a higher rate and fewer controls."""
    rows = [("old", 5000, 500), ("new", 5000, 500)], [("old", 1000, 300), ("new", 9000, 2700)]
    fits = [
        hte.fit(
            hte.cells.from_summary(
                pd.DataFrame(test, columns=["arm", "n", "bought"]).assign(site="A"),
                arm="arm", control="old", segments=["site"], n="n", events="bought",
            ),
            "conversion",
        )
        for test in rows
    ]  # fmt: skip
    both = hte.combine(*fits)
    assert both.table()["raw"].item() == pytest.approx(0.0, abs=1e-12)
    assert abs(both.table()["effect"].item()) < 0.01


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"names": ("a", "a")}, "two different texts"),
        ({"between_tests": 0}, "fit the merged cells"),
        ({"between_tests": {"dist": "Normal"}}, "can be negative"),
        ({"between_tests": {"dist": "Nrmal"}}, "no distribution of a model file"),
        ({"model": "conversion"}, "give a Model"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(change: dict[str, Any], match: str) -> None:
    first = fit_estimates(FIRST, FIRST_SE)
    with pytest.raises(HteError, match=match):
        hte.combine(first, first, **change)


def test_what_is_no_pair_of_tests_is_refused() -> None:
    first, fit = fit_estimates(FIRST, FIRST_SE), hte.example_fit()
    with pytest.raises(HteError, match="different outcomes"):
        hte.combine(first, fit)
    with pytest.raises(HteError, match="two fits, and the second is"):
        hte.combine(first, first.cells)  # type: ignore[arg-type]
    both = hte.combine(first, first)
    with pytest.raises(HteError, match="this fit combines two tests"):
        hte.combine(both, first)
    with pytest.raises(HteError, match="this fit combines two tests"):
        hte.loso(both)
    with pytest.raises(HteError, match="is of one test"):
        first.compare_tests()
    correlated = hte.fit(fit.cells, "conversion-correlated")
    with pytest.raises(HteError, match="a correlation with the baseline"):
        hte.combine(correlated, correlated)
    assert hte.combine(correlated, correlated, model=fit.model).diagnosis.ok


def test_the_command_combines_saved_fits_and_writes_what_run_writes(tmp_path: Any, capsys: Any) -> None:
    from bayes_hte.cli import build_parser

    first, second = (hte.example_fit().save(tmp_path / f"{name}.nc") for name in ("one", "two"))
    out = tmp_path / "both"
    arguments = build_parser().parse_args(
        ["combine", str(first), str(second), "--names", "spring", "autumn", "--out", str(out), "--quiet"]
    )
    assert arguments.action(arguments) == 0
    assert sorted(path.name for path in out.iterdir()) == ["effects.csv", "fit.nc", "report.html", "summary.json"]
    assert "p_differ" in capsys.readouterr().out
    assert hte.load(out / "fit.nc").compare_tests().attrs["tests"] == ["spring", "autumn"]
    plan = tmp_path / "no.toml"
    arguments = build_parser().parse_args(["combine", str(first), str(plan), "--out", str(out), "--quiet"])
    with pytest.raises(HteError, match=r"no\.toml"):
        arguments.action(arguments)
