"""Make the small tables of this folder: invented shops, subscribers and clinics, and the trials of a real vaccine.

python examples/forms/make_data.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
DEVICES = ["desktop", "mobile", "tablet"]

# Colditz et al. 1994, JAMA 271(9): 698-702: cases of tuberculosis and others, vaccinated and not, by trial.
BCG_TRIALS = [
    ("Aronson", 4, 119, 11, 128), ("Ferguson & Simes", 6, 300, 29, 274), ("Rosenthal 1960", 3, 228, 11, 209),
    ("Hart & Sutherland", 62, 13536, 248, 12619), ("Frimodt-Moller", 33, 5036, 47, 5761),
    ("Stein & Aronson", 180, 1361, 372, 1079), ("Vandiviere", 8, 2537, 10, 619),
    ("TPT Madras", 505, 87886, 499, 87892), ("Coetzee & Berjak", 29, 7470, 45, 7232),
    ("Rosenthal 1961", 17, 1699, 65, 1600), ("Comstock 1974", 186, 50448, 141, 27197),
    ("Comstock & Webster", 5, 2493, 3, 2338), ("Comstock 1976", 27, 16886, 29, 17825),
]  # fmt: skip


def draw_units(rng: np.random.Generator, count: int, **levels: list[str]) -> pd.DataFrame:
    """Draw units with a level of each dimension and an arm."""
    return pd.DataFrame(
        {name: rng.choice(of_dimension, count) for name, of_dimension in levels.items()}
        | {"arm": rng.choice(["new", "old"], count)}
    )


def make_rows() -> pd.DataFrame:
    """Customers of a shop: the new checkout sells more on mobiles, and changes nothing elsewhere."""
    rng = np.random.default_rng(1)
    rows = draw_units(rng, 1500, device=DEVICES, customer=["new", "returning"])
    rows.insert(0, "user", np.arange(1, len(rows) + 1))
    rows["visits_before"] = np.where(rows["customer"] == "new", 0, rng.poisson(3.0, len(rows)))
    chance = 0.2 + 0.1 * (rows["customer"] == "returning")
    chance += 0.1 * ((rows["arm"] == "new") & (rows["device"] == "mobile"))
    rows["bought"] = (rng.uniform(size=len(rows)) < chance).astype(int)
    return rows


def make_times() -> pd.DataFrame:
    """Subscribers, seen for 120 days: a new welcome halves the cancellations of those who pay by the month."""
    rng = np.random.default_rng(2)
    rows = draw_units(rng, 900, plan=["monthly", "trial", "yearly"])
    rows["age"] = rng.integers(18, 80, len(rows))
    per_day = rows["plan"].map({"monthly": 0.008, "trial": 0.02, "yearly": 0.002})
    per_day *= np.where((rows["arm"] == "new") & (rows["plan"] == "monthly"), 0.5, 1.0)
    until_event = np.ceil(rng.exponential(1 / per_day))
    rows["days"] = np.minimum(until_event, 120).astype(int)
    rows["cancelled"] = (until_event <= 120).astype(int)
    return rows


def make_summary() -> pd.DataFrame:
    """Sales per customer of the same shop, by device: mean and standard deviation."""
    rng = np.random.default_rng(3)
    units = draw_units(rng, 3000, device=DEVICES)
    units["spent"] = rng.normal(40.0, 12.0, len(units)) + 3.0 * (units["arm"] == "new")
    cells = units.groupby(["device", "arm"])["spent"].agg(users="size", mean_spent="mean", sd_spent="std")
    return cells.round(3).reset_index()


def make_wide() -> pd.DataFrame:
    """Trials of the BCG vaccine against tuberculosis: a 2x2 table per trial."""
    columns = ["trial", "bcg_cases", "bcg_others", "none_cases", "none_others"]
    return pd.DataFrame(BCG_TRIALS, columns=columns)


def make_table() -> pd.DataFrame:
    """Clinics that remind patients of an appointment or do not: the columns' names say it all."""
    rng = np.random.default_rng(4)
    users = rng.integers(150, 400, (6, 1)) + rng.integers(-9, 10, (6, 2))
    came = rng.binomial(users, [0.7, 0.78])
    return pd.DataFrame(
        {
            "clinic": list("ABCDEF"),
            "n_control": users[:, 0],
            "events_control": came[:, 0],
            "n_reminder": users[:, 1],
            "events_reminder": came[:, 1],
        }
    )


def make_levels() -> pd.DataFrame:
    """Stars that users gave to the old and the new search of an app."""
    rng = np.random.default_rng(5)
    units = draw_units(rng, 2400, device=DEVICES)
    liking = rng.logistic(size=len(units)) + 0.4 * (units["arm"] == "new")
    units["stars"] = 1 + np.searchsorted([-2.0, -1.0, 0.0, 1.5], liking)
    return units.groupby(["device", "arm", "stars"]).size().rename("users").reset_index()


def make_estimates() -> pd.DataFrame:
    """Effects that six studies of tutoring published, in standard deviations of the test."""
    rng = np.random.default_rng(6)
    se = np.array([0.05, 0.08, 0.1, 0.12, 0.15, 0.2])
    estimate = rng.normal(0.25, np.hypot(0.1, se))
    return pd.DataFrame({"study": [f"study {i}" for i in range(1, 7)], "effect": estimate.round(2), "se": se})


TABLES = {
    "rows": make_rows,
    "times": make_times,
    "summary": make_summary,
    "wide": make_wide,
    "table": make_table,
    "levels": make_levels,
    "estimates": make_estimates,
}


if __name__ == "__main__":
    for name, make_table_of_form in TABLES.items():
        make_table_of_form().to_csv(HERE / f"{name}.csv", index=False, lineterminator="\n")
