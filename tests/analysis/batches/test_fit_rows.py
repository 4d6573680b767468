"""The pure function: the numbers of `hte.fit`, seeds from keys, nothing loaded that workers would wait for."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from cell_tables import BROKEN, KEYS, PROBLEMS, long_table, records
from hypothesis import given
from hypothesis import strategies as st

import bayes_hte as hte
from bayes_hte.analysis.batches.fit_rows import derive_seed


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    """The result of the long table, in memory."""
    return hte.fit_table(long_table(), "conversion", keys=KEYS)


@pytest.mark.parametrize("key", PROBLEMS)
def test_every_number_is_that_of_a_fit_with_the_seed_of_the_row(results: pd.DataFrame, key: tuple[int, str]) -> None:
    table = long_table()
    rows = table[(table["experiment"] == key[0]) & (table["metric"] == key[1])]
    found = results[(results["experiment"] == key[0]) & (results["metric"] == key[1])]
    cells = hte.cells.from_summary(rows, arm="arm", control="control", segments=["segment"], n="users", events="buyers")
    fit = hte.fit(cells, "conversion", sampler="exact", draws=2000, seed=int(found["seed"].iloc[0]))
    segments, averages = (found[found["row"] == kind].set_index("arm") for kind in ("segment", "average"))
    fitted = fit.table()
    assert segments["segment"].tolist() == fitted["segment"].tolist()
    for name in (
        "n_control",
        "n_treated",
        "raw",
        "raw_se",
        "effect",
        "sd",
        "ci_low",
        "ci_high",
        "p_positive",
        "pooling",
    ):
        assert segments[name].tolist() == fitted[name].tolist(), name
    for name in ("effect", "sd", "ci_low", "ci_high", "p_positive", "p_negative", "raw", "n_treated"):
        assert averages[name].tolist() == fit.ate()[name].tolist(), name


def test_a_problem_that_is_wrong_is_one_row_that_says_why(results: pd.DataFrame) -> None:
    (row,) = [row for row in records(results) if row["row"] == "failure"]
    assert (row["experiment"], row["metric"]) == BROKEN
    assert row["error"] == "no arm is called control or placebo; arms are 'new'; name the control as control=…"
    assert row["effect"] is row["arm"] is row["reliable"] is None


def test_a_problem_s_numbers_depend_on_its_rows_and_key_alone(results: pd.DataFrame) -> None:
    table = long_table()
    alone = table[(table["experiment"] == 2)].iloc[::-1]
    expected = [row for row in records(results) if row["experiment"] == 2]
    assert records(hte.fit_table(alone, "conversion", keys=KEYS)) == expected


def test_another_base_seed_gives_other_draws(results: pd.DataFrame) -> None:
    table = long_table()
    other = hte.fit_table(table[table["experiment"] == 2], "conversion", keys=KEYS, seed=2)
    same = results[(results["experiment"] == 2) & (results["row"] == "segment")]
    assert (other[other["row"] == "segment"]["sd"].to_numpy() != same["sd"].to_numpy()).all()


keys = st.lists(st.none() | st.text(max_size=5), min_size=1, max_size=3).map(tuple)


@given(keys, keys)
def test_different_keys_have_different_seeds(first: tuple[str | None, ...], second: tuple[str | None, ...]) -> None:
    # Of 32 bits: a pair collides by chance once in 4 billion.
    assert (derive_seed(1, first) == derive_seed(1, second)) is (first == second)


def test_a_missing_key_is_a_key_of_its_own() -> None:
    table = long_table().query("experiment == 2").assign(experiment=None)
    results = hte.fit_table(table, "conversion", keys=KEYS)
    assert results["experiment"].isna().all()
    assert set(results["row"]) == {"segment", "average"}


def test_workers_load_neither_pymc_nor_what_draws_pictures(tmp_path: Path) -> None:
    """A fresh Python unpickles the function and the rows, as a worker does, and runs it."""
    from functools import partial

    from bayes_hte.analysis.batches import frame_engines
    from bayes_hte.analysis.batches.cell_columns import choose_cell_columns
    from bayes_hte.analysis.batches.fit_problems import TableRequest
    from bayes_hte.analysis.batches.fit_rows import TableTask, fit_rows
    from bayes_hte.estimands.tables import EffectQuestion

    table = long_table()
    columns = choose_cell_columns(
        frame_engines.read_column_kinds(table), keys=KEYS, segments=None, arm=None, control=None, statistics=None
    )
    request = TableRequest(hte.read_model("conversion"), EffectQuestion(), "exact", 1000)
    path = tmp_path / "work.pickle"
    path.write_bytes(pickle.dumps((partial(fit_rows, task=TableTask(columns, request, 1)), table)))
    code = (
        f"import json, pickle, sys; work, rows = pickle.load(open({str(path)!r}, 'rb')); result = work(rows); "
        "print(json.dumps([len(result), sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    row_count, modules = json.loads(done.stdout.splitlines()[-1])
    assert row_count == 3 * (3 + 1) + 1
    assert not {"pymc", "pytensor", "nutpie", "numba", "matplotlib", "duckdb", "rich"} & set(modules)
