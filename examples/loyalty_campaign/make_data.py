"""Write customers.csv, the rows of a simulated loyalty campaign, and truth.csv, what is true of it.

python examples/loyalty_campaign/make_data.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

import bayes_hte as hte

HERE = Path(__file__).parent

# Orders of a quarter without points, and by how much points raise them: most for who buys often and lives in town.
ORDERS = {"occasional": 0.8, "regular": 2.0, "repeat": 5.0}
LIFT = {
    ("occasional", "rural"): 0.00, ("occasional", "urban"): 0.03,
    ("regular", "rural"): 0.04, ("regular", "urban"): 0.08,
    ("repeat", "rural"): 0.08, ("repeat", "urban"): 0.15,
}  # fmt: skip
# Euros that an order earns; points cost a twentieth of it, whether or not they led to the order.
MARGIN, POINTS_COST = 6.0, 0.05


def simulate() -> hte.Simulation:
    """5,000 customers by purchase frequency and geography: orders in the quarter, with and without points."""
    return hte.simulate(
        {
            "frequency": {"occasional": 0.4, "regular": 0.35, "repeat": 0.25},
            "geography": {"rural": 0.35, "urban": 0.65},
        },
        family="negative_binomial",
        effect=LIFT,
        scale="relative",
        baseline={"frequency": ORDERS},
        alpha=8.0,
        arms=["no points", "points"],
        n=5_000,
        rows=True,
        outcome="orders",
        seed=20260306,
    )


def tables() -> dict[str, pd.DataFrame]:
    """The committed tables, by file."""
    simulation = simulate()
    rows = simulation.rows.copy()
    per_order = np.where(rows["arm"] == "points", MARGIN * (1 - POINTS_COST), MARGIN)
    rows["margin"] = (per_order * rows["orders"]).round(2)
    # margin per customer = orders × what an order earns
    truth = simulation.truth.assign(
        margin_control=simulation.truth["baseline"] * MARGIN,
        margin_points=simulation.truth["mean"] * MARGIN * (1 - POINTS_COST),
    )
    return {"customers.csv": rows, "truth.csv": truth.round(6)}


if __name__ == "__main__":
    for name, table in tables().items():
        table.to_csv(HERE / name, index=False, lineterminator="\n")
