"""Write visitors.csv, the counts of a simulated pricing page, and truth.csv, what is true of it.

python examples/pricing_page/make_data.py
"""

from pathlib import Path

import pandas as pd

import bayes_hte as hte

HERE = Path(__file__).parent


def simulate() -> hte.Simulation:
    """200,000 visitors: the new page starts 8 % more trials on mobile, none more on desktop, 4 % fewer on tablets."""
    return hte.simulate(
        {"device": {"mobile": 0.42, "desktop": 0.43, "tablet": 0.15}},
        effect={"mobile": 0.08, "desktop": 0.0, "tablet": -0.04},
        scale="relative",
        baseline=0.10,
        arms=["old page", "new page"],
        n=200_000,
        outcome="trials",
        seed=20260302,
    )


def tables() -> dict[str, pd.DataFrame]:
    """The committed tables, by file."""
    simulation = simulate()
    counts = simulation.cells[["n", "events"]].to_dataframe().reset_index()
    counts = counts[["device", "arm", "n", "events"]].rename(columns={"n": "visitors", "events": "trials"})
    return {"visitors.csv": counts, "truth.csv": simulation.truth.round(6)}


if __name__ == "__main__":
    for name, table in tables().items():
        table.to_csv(HERE / name, index=False, lineterminator="\n")
