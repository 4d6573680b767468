"""Write people.csv and regions.csv, the counts of a simulated vaccine trial, and truth.csv, what is true of it.

python examples/vaccine_by_region/make_data.py
"""

from pathlib import Path

import pandas as pd

import bayes_hte as hte

HERE = Path(__file__).parent

# The vaccine works where it was kept cold: log odds of an infection fall by 1.2, and by 0.2 where the chain broke.
COLD_CHAIN_EFFECTS = {"kept": -1.2, "broken": -0.2}
# Of each region: its share of the people, how many of them got doses that were kept cold, and the risk in a season.
REGIONS = {"coast": (0.45, 0.90, 0.09), "midlands": (0.30, 0.60, 0.10), "highlands": (0.25, 0.25, 0.11)}


def population() -> pd.DataFrame:
    """One row per segment: its share of the people, the risk without vaccine, and the vaccine's effect."""
    return pd.DataFrame(
        [
            (region, chain, share * part, risk, COLD_CHAIN_EFFECTS[chain])
            for region, (share, kept, risk) in REGIONS.items()
            for chain, part in (("kept", kept), ("broken", 1 - kept))
        ],
        columns=["region", "cold_chain", "share", "baseline", "effect"],
    )


def simulate() -> hte.Simulation:
    """24,000 people in three regions, half of them vaccinated: how many were infected within the season."""
    return hte.simulate(population(), arms=["placebo", "vaccine"], n=24_000, outcome="infected", seed=20260303)


def tables() -> dict[str, pd.DataFrame]:
    """The committed tables, by file."""
    simulation = simulate()
    counts = simulation.cells[["n", "events"]].to_dataframe().reset_index()
    counts = counts[["region", "cold_chain", "arm", "n", "events"]].rename(
        columns={"n": "people", "events": "infected"}
    )
    # The first look at the trial has regions only: the same people, added up.
    regions = counts.groupby(["region", "arm"], sort=False, as_index=False)[["people", "infected"]].sum()
    return {"regions.csv": regions, "people.csv": counts, "truth.csv": simulation.truth.round(6)}


if __name__ == "__main__":
    for name, table in tables().items():
        table.to_csv(HERE / name, index=False, lineterminator="\n")
