"""Rows that are sums, and segments of one unit, are questioned; ordinary ones are not."""

import numpy as np
import pandas as pd

import bayes_hte as hte

ASK = {"arm": "arm", "control": "c", "segments": ["seg"]}


def said(cells: object) -> str:
    return " ".join(hte.check(cells))  # type: ignore[arg-type]


def test_days_in_place_of_units_are_questioned() -> None:
    rng = np.random.default_rng(0)
    days = pd.DataFrame(
        [(s, a, d) for s in "xyz" for a in ("c", "t") for d in range(14)], columns=["seg", "arm", "day"]
    )
    days["orders"] = rng.poisson(300, len(days))
    text = said(hte.cells.from_rows(days, outcome="orders", **ASK))
    assert "every cell has exactly 14 rows" in text
    assert "from_summary" in text
    units = pd.DataFrame({"seg": rng.choice(list("xyz"), 900), "arm": rng.choice(["c", "t"], 900)})
    units["orders"] = rng.poisson(3, 900)
    assert "every cell has exactly" not in said(hte.cells.from_rows(units, outcome="orders", **ASK))


def test_thousands_of_segments_of_one_unit_are_questioned() -> None:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"seg": rng.integers(0, 2000, 4400), "shop": rng.integers(0, 3, 4400)})
    rows["arm"], rows["y"] = rng.choice(["c", "t"], 4400), rng.normal(size=4400)
    cells = hte.cells.from_rows(rows, outcome="y", arm="arm", control="c", segments=["seg", "shop"])
    assert "2 units or fewer, which compares nothing: is 'seg'" in said(cells)
    few = hte.cells.from_rows(rows.assign(seg=rows["seg"] % 40), outcome="y", **ASK)
    assert "compares nothing" not in said(few)
