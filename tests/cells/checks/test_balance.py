"""What check says of units that differed before treatment, or were lost after it."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bayes_hte.cells.checks.balance import pool_pretreatment_moments
from bayes_hte.cells.checks.check import collect_findings
from bayes_hte.spec import cell_table


def measured(groups, names=("age",), arms=("old", "new"), **more) -> xr.Dataset:
    """Cells from values per segment, arm and covariate: lists of arrays (units, covariate)."""
    n = np.array([[len(values) for values in row] for row in groups])
    stacked = {
        "pre_n": np.repeat(n[..., None], len(names), axis=-1),
        "pre_mean": np.array(
            [[v.mean(axis=0) if len(v) else np.full(len(names), np.nan) for v in row] for row in groups]
        ),
        "pre_ss": np.array(
            [[v.var(axis=0) * len(v) if len(v) else np.zeros(len(names)) for v in row] for row in groups]
        ),
    }
    labels = [f"s{i}" for i in range(len(n))]
    cells = xr.Dataset(
        {"n": (("segment", "arm"), n), "events": (("segment", "arm"), n // 10)}
        | {name: (("segment", "arm", "pre_covariate"), values) for name, values in stacked.items()}
        | {name: (("segment", "arm"), np.asarray(values)) for name, values in more.items()},
        coords={"segment": labels, "arm": list(arms), "pre_covariate": list(names), "device": ("segment", labels)},
        attrs={"outcome": "y", "control": arms[0], "dimensions": '["device"]', "notes": "[]"},
    )
    return cell_table.check_cell_table(cells)


def drawn(rng, sizes, shift=0.0, covariates=1):
    """One array per segment and arm; the last arm is shifted in the first covariate."""
    first = np.eye(1, covariates)[0]
    return [
        [
            rng.normal(40 + 3 * i, 10, (n, covariates)) + (shift * first if j == len(row) - 1 else 0)
            for j, n in enumerate(row)
        ]
        for i, row in enumerate(sizes)
    ]


def test_pooling_segments_is_pooling_units():
    groups = [*drawn(np.random.default_rng(1), [[30, 40], [50, 20]], covariates=2), [np.zeros((0, 2)), np.ones((4, 2))]]
    found = pool_pretreatment_moments(measured(groups, names=("age", "visits")))
    for j in (0, 1):
        units = np.concatenate([row[j] for row in groups])
        assert found.n[j].tolist() == [len(units)] * 2
        np.testing.assert_allclose(found.mean[j], units.mean(axis=0))
        np.testing.assert_allclose(found.ss[j], units.var(axis=0) * len(units))


def test_a_covariate_that_differs_is_said_with_its_means():
    groups = drawn(np.random.default_rng(2), [[500, 480], [300, 310]], shift=4.0)
    (sentence,) = collect_findings(measured(groups)).validity_warnings
    old, new = (np.concatenate([row[j] for row in groups])[:, 0] for j in (0, 1))
    p = max(stats.ttest_ind(old, new, equal_var=equal).pvalue for equal in (True, False))
    d = (new.mean() - old.mean()) / np.sqrt((old.var(ddof=1) + new.var(ddof=1)) / 2)
    assert sentence == (
        f"1 covariate differs between the arms already before treatment: 'age' (mean {old.mean():.4g} in old, "
        f"{new.mean():.4g} in new, {d:.2g} standard deviations apart; p = {p:.0e}); randomisation hardly does that: "
        "find out how units came to their arms, and adjust for what differs"
    ).replace("e-0", "e-")


def test_of_several_arms_the_furthest_is_named_and_covariates_are_corrected_for():
    groups = drawn(np.random.default_rng(3), [[400, 400, 400]], shift=6.0, covariates=3)
    cells = measured(groups, names=("age", "b\nc", "d"), arms=("old", "new", "newer"))
    (sentence,) = collect_findings(cells).validity_warnings
    assert sentence.startswith("1 covariate differs between the arms already before treatment: 'age' (mean ")
    assert " in newer, " in sentence
    assert " in new, " not in sentence


def test_many_covariates_that_differ_are_counted():
    rng = np.random.default_rng(4)
    groups = [[rng.normal(0, 1, (300, 5)), rng.normal(1, 1, (300, 5))]]
    names = ("a", "b\nc", "<i>", "W" * 200, "e")
    (sentence,) = collect_findings(measured(groups, names=names)).validity_warnings
    assert sentence.startswith("5 covariates differ between the arms already before treatment: ")
    assert "; and 2 more; randomisation" in sentence
    assert "\n" not in sentence


def test_a_covariate_that_each_arm_has_only_one_value_of_differs():
    (sentence,) = collect_findings(measured([[np.zeros((50, 1)), np.ones((50, 1))]])).validity_warnings
    assert "'age' (mean 0 in old, 1 in new; p < 1e-99)" in sentence
    assert collect_findings(measured([[np.ones((50, 1)), np.ones((50, 1))]])).validity_warnings == ()


def test_covariates_without_units_say_nothing():
    for groups in ([[np.zeros((50, 1)), np.zeros((0, 1))]], [[np.ones((1, 1)), np.zeros((1, 1))]]):
        assert collect_findings(measured(groups)).validity_warnings == ()


def cells_with(n, missing, **more):
    groups = [[np.zeros((k, 1)) for k in row] for row in n]
    return measured(groups, n_missing=missing, **more).drop_vars(["pre_n", "pre_mean", "pre_ss", "pre_covariate"])


def test_numbers_missing_at_different_rates_are_said():
    n, missing = [[960, 900], [970, 930]], [[40, 100], [30, 70]]
    (sentence,) = collect_findings(cells_with(n, missing)).validity_warnings
    p = stats.chi2_contingency([[1930, 1830], [70, 170]], correction=False).pvalue
    assert sentence == (
        "numbers are missing at different rates in the arms: 3.5 % of the rows in old, 8.5 % of the rows in new "
        f"(p = {p:.0e}); those that are left may differ even if the treatment does nothing: find out why they are "
        "missing before believing any effect"
    )


def test_rows_missing_are_compared_with_rows_not_with_units():
    n, missing = [[100, 100]], [[40, 70]]
    assert collect_findings(cells_with(n, missing, n_rows=[[4000, 3970]])).validity_warnings == ()
    assert len(collect_findings(cells_with(n, [[40, 170]], n_rows=[[4000, 3970]])).validity_warnings) == 1


@pytest.mark.parametrize(("missing", "sentences"), [([[0, 0]], 0), ([[0, 3]], 0), ([[0, 20]], 1)])
def test_a_few_missing_numbers_are_compared_exactly(missing, sentences):
    assert len(collect_findings(cells_with([[1000, 1000 - missing[0][1]]], missing)).validity_warnings) == sentences
