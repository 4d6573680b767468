"""Write first.csv and second.csv, two simulated trials of a learning platform, and truth.csv, what is true of them.

python examples/learning_platform/make_data.py
"""

from pathlib import Path

import pandas as pd

import bayes_hte as hte

HERE = Path(__file__).parent

# Points on a test with the SD 15 over pupils: those who plan their own work gain, the others are lost on the platform.
FIRST_EFFECTS = {"low": -2.0, "medium": 2.0, "high": 5.0}
# The second version leads pupils step by step: a scaffold that those who need none hardly notice.
SECOND_EFFECTS = {"low": 3.0, "medium": 3.0, "high": 5.0}
BASELINES = {"low": 62.0, "medium": 68.0, "high": 75.0}


def simulate(effects: dict[str, float], *, n: int, seed: int) -> hte.Simulation:
    """Pupils by self-regulation and school year; the platform or the usual lessons for a term."""
    return hte.simulate(
        {"self_regulation": {"low": 0.3, "medium": 0.45, "high": 0.25}, "year": ["7", "8"]},
        family="normal",
        effect={"self_regulation": effects},
        baseline={"self_regulation": BASELINES},
        sd=15.0,
        arms=["lessons", "platform"],
        n=n,
        outcome="score",
        seed=seed,
    )


def tables() -> dict[str, pd.DataFrame]:
    """The committed tables, by file."""
    trials = {
        "first": simulate(FIRST_EFFECTS, n=2_400, seed=20260304),
        "second": simulate(SECOND_EFFECTS, n=2_400, seed=20260305),
    }
    data = {}
    for name, simulation in trials.items():
        cells = simulation.cells.assign(sd=(simulation.cells["ss"] / (simulation.cells["n"] - 1)) ** 0.5)
        table = cells[["n", "mean", "sd"]].to_dataframe().reset_index()
        data[f"{name}.csv"] = table[["self_regulation", "year", "arm", "n", "mean", "sd"]].round(4)
    truth = pd.concat([simulation.truth.assign(trial=name) for name, simulation in trials.items()])
    return {**data, "truth.csv": truth.round(6)}


if __name__ == "__main__":
    for name, table in tables().items():
        table.to_csv(HERE / name, index=False, lineterminator="\n")
