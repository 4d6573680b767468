"""Simulation-based calibration: the stored run of benchmarks/calibration.py, and a small one of the same functions.

False alarms: with new seeds an engine that is right fails the small run with probability FALSE_ALARM per design, and
the stored one with probability .015: .01 for uniformity, .005 for the 75 comparisons at 4 standard errors. With the
seeds here the outcome is always the same.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from benchmark_scripts import load
from numpy.typing import NDArray
from scipy import special, stats

from bayes_hte import read_model
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.parameters import collect_hyperparameters
from bayes_hte.spec import list_shipped_models

FALSE_ALARM = 0.001

calibration = load("calibration")
designs = importlib.import_module("calibration_designs")
DESIGNS = list(calibration.DESIGNS)
SLOW = pytest.mark.slow


def small_run(name: str, count: int, engine: str | None = None) -> dict[str, Any]:
    """What is kept of a few replications."""
    found = list(calibration.replications(name, count, engine=engine, seed=7, draws=1000))
    record: dict[str, Any] = calibration.summarised(found)
    assert record["outcomes"].get("certified", 0) >= 0.97 * count, record["reasons"]
    assert "broken" not in record["outcomes"], record["reasons"]
    return record


def suspicious(record: dict[str, Any]) -> dict[str, float]:
    """Quantities whose ranks are not uniform by the chi-square test, with Holm's adjusted p-values."""
    p = np.array([calibration.chi_square(np.array(counts)) for counts in record["ranks"].values()])
    adjusted = zip(record["ranks"], calibration.holm(p), strict=True)
    return {name: float(each) for name, each in adjusted if not each > FALSE_ALARM}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("binomial", 60),
        ("mean", 60),
        ("estimate", 120),
        ("negative binomial", 30),
        ("ordinal", 30),
        ("survival", 30),
        ("strata", 40),
        pytest.param("poisson", 80, marks=SLOW),
        pytest.param("two parts", 60, marks=SLOW),
        pytest.param("heavy tails", 30, marks=SLOW),
        pytest.param("correlation", 80, marks=SLOW),
        pytest.param("covariate", 80, marks=SLOW),
        ("crossed", 60),
        ("nested", 60),
        pytest.param("crossed, sparse", 80, marks=SLOW),
        pytest.param("crossed, three arms", 80, marks=SLOW),
        pytest.param("nested, covariate", 80, marks=SLOW),
    ],
)
def test_ranks_of_the_truth_are_uniform(name: str, count: int) -> None:
    assert suspicious(small_run(name, count)) == {}


def test_a_posterior_under_another_prior_is_caught() -> None:
    record = small_run("estimate", 80, "halved_prior")
    assert "effect_between[treated]" in suspicious(record)
    assert calibration.faults(calibration.judged({"estimate": record})["estimate"])


def test_levels_that_differ_more_than_the_engine_takes_them_to_are_caught() -> None:
    assert any(name.endswith("_between[treated]") for name in suspicious(small_run("crossed", 60, "halved_levels")))


def test_segments_with_their_neighbours_levels_are_caught() -> None:
    assert suspicious(small_run("crossed", 60, "swapped_levels"))


def test_engines_that_are_wrong_about_levels_change_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_prior(task: Any, *, draws: int, seed: int) -> Any:
        drawn = calibration.draw_from_prior(task, draw_count=draws, rng=np.random.default_rng(seed))
        solved.append(task)
        return calibration.Draws(xr.Dataset(drawn), xr.Dataset())

    solved: list[Any] = []
    monkeypatch.setattr(calibration, "exactly", from_prior)
    task = calibration._empty("nested")
    right, narrow, halved, swapped = (
        engine(task, draws=200, seed=1).posterior
        for engine in (
            from_prior,
            calibration.overconfident_levels,
            calibration.halved_levels,
            calibration.swapped_levels,
        )
    )
    for name, values in right.data_vars.items():
        level = name in ("effect_region", "effect_region_district")
        ratio = narrow[name].std(("chain", "draw")) / values.std(("chain", "draw"))
        assert ratio.values == pytest.approx(0.85 if level else 1.0)
    # Half of the SDs between levels, the same of what is left; the same levels, in other segments.
    for name in ("effect_region_between", "effect_region_district_between"):
        assert halved[name].values == pytest.approx(0.5 * right[name].values)
    assert halved["effect_between"].values == pytest.approx(right["effect_between"].values)
    assert swapped["effect_region_district"].values == pytest.approx(right["effect_region_district"].values)
    before, after = (solved[at].segment_design.level_index for at in (0, 3))
    assert (after["region"] == before["region"]).all()
    assert (after["region:district"] != before["region:district"]).any()


def test_counts_that_vary_more_than_the_engine_takes_them_to_are_caught() -> None:
    assert any(name.startswith("alpha") for name in suspicious(small_run("negative binomial", 30, "smooth_counts")))


def test_a_posterior_that_ignores_an_arm_is_caught_by_the_likelihood_alone() -> None:
    assert list(suspicious(small_run("binomial", 30, "deaf"))) == ["log_likelihood"]


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(calibration.RESULTS.read_text(encoding="utf-8"))
    return content


@pytest.fixture(params=DESIGNS)
def record(request: pytest.FixtureRequest, stored: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = stored["designs"][request.param]
    return content


def test_the_page_says_which_stored_results_are_of_earlier_sources(stored: dict[str, Any]) -> None:
    page = calibration.PAGE.read_text(encoding="utf-8")
    sentence = calibration.describe_stale(calibration.stale(stored["designs"]))
    assert sentence in page, f"write on the page: {sentence}"
    assert sentence or calibration.describe_stale(["x"])[:20] not in page, "nothing is stale: take the sentence out"


def test_stored_calibration_has_as_many_replications_as_the_designs_ask_for(stored: dict[str, Any]) -> None:
    assert list(stored["designs"]) == DESIGNS
    for name, each in stored["designs"].items():
        design = calibration.DESIGNS[name]
        ranked = each["replications"] - each["outcomes"].get("unsupported", 0) - each["outcomes"].get("broken", 0)
        assert each["replications"] >= design.replications
        assert ranked >= 0.98 * each["replications"]
        assert each["draws"] >= design.draws
        assert {sum(counts) for counts in each["ranks"].values()} == {ranked}


def test_every_shipped_model_has_a_design_of_its_family_and_structure() -> None:
    covered = {designs.kind(design.model) for design in calibration.DESIGNS.values()}
    lacking = {name: designs.kind(read_model(name)) for name in list_shipped_models()}
    lacking = {name: each for name, each in lacking.items() if each not in covered}
    assert not lacking, f"add to benchmarks/calibration_designs.py a design for {lacking}"


def test_every_family_has_a_design_with_its_hyperparameters_ranked(stored: dict[str, Any]) -> None:
    assert {design.model.family for design in calibration.DESIGNS.values()} == set(FAMILIES)
    for name, each in stored["designs"].items():
        ranked = {quantity.partition("[")[0] for quantity in each["ranks"]}
        assert {*collect_hyperparameters(calibration._empty(name).model), "effect", "ATE", "log_likelihood"} <= ranked


def test_stored_calibration_found_nothing_wrong(record: dict[str, Any]) -> None:
    assert calibration.faults(record) == []


def test_stored_p_values_follow_from_the_stored_ranks(stored: dict[str, Any]) -> None:
    again = calibration.judged(stored["designs"])
    for name, each in stored["designs"].items():
        for quantity, p in each["p"].items():
            assert again[name]["p"][quantity] == pytest.approx(p, rel=1e-6)


def test_engines_that_are_wrong_on_purpose_were_all_caught(stored: dict[str, Any]) -> None:
    expected = [(engine, design) for engine, design in calibration.WRONG if design in DESIGNS]
    assert [(each["engine"], each["design"]) for each in stored["wrong"]] == expected
    assert all(each["faults"] for each in stored["wrong"])


def test_page_and_figure_belong_to_the_stored_results(stored: dict[str, Any]) -> None:
    page = calibration.PAGE.read_text(encoding="utf-8")
    assert calibration.tables(stored) in page
    picture = calibration.FIGURE.read_text(encoding="utf-8")
    assert len(picture) < 450_000
    for name, each in stored["designs"].items():
        assert f"{name}: {len(each['ranks'])} quantities" in picture


def uniform(sets: int, total: int) -> NDArray[np.int64]:
    """Counts of ranks that are uniform: (set, rank)."""
    return np.random.default_rng(3).multinomial(total, np.full(calibration.RANKS, 0.01), size=sets)


def test_a_design_is_stale_when_what_it_depends_on_changes(
    monkeypatch: pytest.MonkeyPatch, stored: dict[str, Any]
) -> None:
    now = {name: {"sha256": calibration.fingerprint(name)} for name in calibration.DESIGNS}
    assert calibration.stale(now) == []
    read = Path.read_text

    def stale_after_an_edit_of(file: str) -> set[str]:
        def edited(path: Path, *args: Any, **options: Any) -> str:
            return read(path, *args, **options) + ("#" if path == calibration.PACKAGE / file else "")

        monkeypatch.setattr(Path, "read_text", edited)
        return set(calibration.stale(now))

    assert stale_after_an_edit_of("model/coefficients.py") == set(calibration.DESIGNS)
    for engine in ("draw.py", "latent/weights.py"):
        assert stale_after_an_edit_of(f"inference/exact/{engine}") == set(calibration.DESIGNS) - {"crossed dimensions"}
    assert stale_after_an_edit_of("inference/exact/parts.py") == {"two parts"}
    assert stale_after_an_edit_of("model/families/ordinal.py") == {"ordinal"}
    assert stale_after_an_edit_of("model/families/normal.py") == {"normal", "two parts", "crossed, three arms"}
    assert stale_after_an_edit_of("estimands/tables.py") == set()


@pytest.mark.parametrize("test", ["chi_square", "ecdf_p"])
def test_tests_of_uniformity_keep_their_level(test: str) -> None:
    p = np.array([getattr(calibration, test)(counts) for counts in uniform(500, 300)])
    for level in (0.05, 0.5):
        low, high = stats.binom(500, level).ppf([0.0005, 0.9995])
        assert low <= (p <= level).sum() <= high


def test_an_ecdf_leaves_its_band_when_its_p_value_is_below_alpha() -> None:
    low, high = calibration.band(300, 0.1)
    edges = np.arange(1, calibration.RANKS) / calibration.RANKS
    for counts in uniform(300, 300):
        difference = counts.cumsum()[:-1] / 300 - edges
        outside = bool(((difference < low - 1e-9) | (difference > high + 1e-9)).any())
        assert outside == (calibration.ecdf_p(counts) <= 0.1)


@pytest.mark.parametrize(("total", "least"), [(60, 0.02), (300, 0.004), (1000, 0.0005)])
def test_probability_of_leaving_the_band_is_that_of_simulated_ranks(total: int, least: float) -> None:
    rng = np.random.default_rng(11)
    deep = [calibration.depth(rng.multinomial(total, np.full(calibration.RANKS, 0.01), 2000)) for _ in range(10)]
    p, seen = calibration.leaving(total, least), float((np.concatenate(deep) <= least).mean())
    assert abs(seen - p) < 4 * np.sqrt(p * (1 - p) / 20_000)


def test_holm_steps_down() -> None:
    assert calibration.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_ties_get_every_rank_equally_often() -> None:
    rng, values = np.random.default_rng(5), np.zeros(calibration.RANKS)
    ranks = [calibration.rank_of_last(values, rng) for _ in range(5000)]
    assert stats.chisquare(np.bincount(ranks, minlength=calibration.RANKS)).pvalue > FALSE_ALARM


def test_missing_draws_are_an_error_not_a_rank() -> None:
    values = np.zeros(calibration.RANKS)
    values[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        calibration.rank_of_last(values, np.random.default_rng(5))


def simulated(name: str, **fixed: Any) -> tuple[Any, Any]:
    """Cells of a design given its parameters; what is not stated is 0."""
    task = calibration._empty(name)
    drawn = calibration.prior(task, np.random.default_rng(1)).isel(chain=0, draw=0)
    drawn = drawn.map(lambda each: 0.0 * each).assign({key: drawn[key] * 0 + value for key, value in fixed.items()})
    many = calibration.DESIGNS[name].cells.copy(deep=True)
    many["n"].values[:] = 20_000
    return calibration.DESIGNS[name].outcomes(many, drawn, np.random.default_rng(9)), drawn


def z_of(seen: Any, expected: float, sd: float) -> NDArray[np.float64]:
    """In standard errors of 20,000 units."""
    found: NDArray[np.float64] = (np.asarray(seen) - expected) / (sd / np.sqrt(20_000))
    return found


def test_simulated_counts_have_the_mean_and_variance_of_a_negative_binomial() -> None:
    cells, _ = simulated("negative binomial", baseline=np.log(2.0), effect=np.log(1.5), alpha=0.8)
    seen = cells["histogram"].isel(arm=1)
    mean = (seen * cells["value"]).sum("value") / 20_000
    zeros = seen.sel(value=0) / 20_000
    p0 = (0.8 / 3.8) ** 0.8
    assert np.abs(z_of(mean, 3.0, np.sqrt(3 + 9 / 0.8))).max() < 4
    assert np.abs(z_of(zeros, p0, np.sqrt(p0 * (1 - p0)))).max() < 4


def test_simulated_answers_have_cumulative_log_odds() -> None:
    cells, _ = simulated("ordinal", baseline=0.3, effect=0.5, cutpoints=np.array([-1.0, 0.2, 1.5]))
    below = cells["histogram"].isel(arm=1).cumsum("value").values[:, :3] / 20_000
    for cutpoint, seen in zip((-1.0, 0.2, 1.5), below.T, strict=True):
        p = float(special.expit(cutpoint - 0.8))
        assert np.abs(z_of(seen, p, np.sqrt(p * (1 - p)))).max() < 4


def test_simulated_times_have_the_hazards_of_their_intervals() -> None:
    cells, _ = simulated("survival", baseline=np.log(0.1), effect=0.4, hazards=np.array([0.5, -0.5]))
    failures, at_risk = (cells[name].isel(arm=1).sum("segment").values for name in ("failures", "at_risk"))
    expected = 0.1 * np.exp(0.4 + np.array([0.0, 0.5, -0.5])) * at_risk
    assert np.abs((failures - expected) / np.sqrt(expected)).max() < 4
    assert (at_risk[1:] < 0.95 * 8 * 20_000 * np.diff(designs.EDGES)[1:]).all()  # some had failed, or were censored


def test_simulated_purchases_have_both_parts() -> None:
    given = {"chance_baseline": -1.0, "chance_effect": 0.4, "amount_baseline": 0.5, "amount_effect": 0.2, "sigma": 0.7}
    cells, _ = simulated("two parts", **given)
    treated, p = cells.isel(arm=1), float(special.expit(-0.6))
    bought = treated["positive"].values
    assert np.abs(z_of(bought / 20_000, p, np.sqrt(p * (1 - p)))).max() < 4
    assert np.abs((treated["log_mean"].values - 0.7) / (0.7 / np.sqrt(bought))).max() < 4
    assert np.abs((treated["log_ss"].values / 0.49 - bought) / np.sqrt(2 * bought)).max() < 4
    mean = p * np.exp(0.7 + 0.7**2 / 2)
    square = p * np.exp(2 * 0.7 + 2 * 0.7**2)
    assert np.abs(z_of(treated["mean"], mean, np.sqrt(square - mean**2))).max() < 4


def test_simulated_cells_have_the_moments_that_their_parameters_promise() -> None:
    rng = np.random.default_rng(2)
    ratios, z = [], []
    for _ in range(100):
        experiment = calibration.simulate("normal", rng)
        drawn = experiment.truth.isel(chain=0, draw=0)
        cells = experiment.cells.isel(arm=1)
        sigma, n = float(drawn["sigma"].isel(variant=1)), cells["n"].values
        expected = (drawn["baseline"] + drawn["effect"].isel(arm=0)).values
        z += list((cells["mean"].values - expected) / (sigma / np.sqrt(n)))
        ratios.append(float(cells["ss"].sum()) / sigma**2)
        assert (cells["ss"].values[n == 1] == 0).all()
    freedom = int((designs.SMALL[:, 1] - 1).sum())
    assert stats.kstest(z, "norm").pvalue > FALSE_ALARM
    assert stats.kstest(ratios, stats.chi2(freedom).cdf).pvalue > FALSE_ALARM
