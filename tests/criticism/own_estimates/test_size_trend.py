"""Effects that go together with the size of segments are noted, others hardly ever."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_hte as hte


def sized(seed: int, slope: float, segments: int = 20) -> xr.Dataset:
    """Counts of segments whose sizes span two orders of magnitude; effects change by `slope` per factor e of size."""
    rng = np.random.default_rng(seed)
    n = np.exp(rng.uniform(np.log(200), np.log(20_000), segments)).astype(int)
    effect = rng.normal(0.2, 0.1, segments) + slope * (np.log(n) - np.log(2000))
    baseline = rng.normal(-1.5, 0.3, segments)
    rows = [
        {"site": f"s{i}", "arm": arm, "n": n[i], "y": rng.binomial(n[i], 1 / (1 + np.exp(-baseline[i] - shift)))}
        for i in range(segments)
        for arm, shift in (("c", 0.0), ("t", effect[i]))
    ]
    return hte.cells.from_summary(pd.DataFrame(rows), arm="arm", control="c", segments=["site"], n="n", events="y")


def notes(cells: xr.Dataset, model: hte.Model | str = "conversion") -> str:
    return " ".join(hte.fit(cells, model, draws=400).diagnosis.notes)


def test_effects_that_fall_with_size_are_noted_and_a_covariate_is_the_way_out() -> None:
    said = [notes(sized(seed, slope=-0.2)) for seed in range(10)]
    # Found in 99 of 100 simulations; fewer than 7 of 10 then has probability 1e-6.
    assert sum("go together with the size of segments" in text for text in said) >= 7
    cells = sized(0, slope=-0.2)
    log_size = pd.DataFrame({"site": cells["site"].values, "log_size": np.log(cells["n"].sum("arm").values)})
    content = hte.read_model("conversion").model_dump(exclude_none=True)
    content["effect"] |= {"covariates": ["log_size"], "slope": {"dist": "Normal", "sigma": 0.5}}
    with_size = hte.cells.with_covariates(cells, log_size, ["log_size"])
    assert notes(with_size, hte.Model.model_validate(content)) == ""


def test_effects_that_do_not_are_hardly_ever_noted() -> None:
    """One in a hundred each: more than 3 of 30 with probability 2e-4."""
    assert sum("go together" in notes(sized(seed, slope=0.0)) for seed in range(100, 130)) <= 3


@pytest.mark.parametrize("sizes", [[500] * 10, [500, 600] * 5])
def test_segments_of_one_size_say_nothing_of_size(sizes: list[int]) -> None:
    rows = pd.DataFrame(
        [
            {"site": f"s{i}", "arm": arm, "n": n, "y": 20 + 9 * i * (arm == "t")}
            for i, n in enumerate(sizes)
            for arm in ("c", "t")
        ]
    )
    cells = hte.cells.from_summary(rows, arm="arm", control="c", segments=["site"], n="n", events="y")
    assert notes(cells) == ""
