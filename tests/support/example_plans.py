"""Plans with several metrics and breakdowns, and rows for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayes_hte import Plan
from bayes_hte._support.toml_text import write_toml_document

GOAL: dict[str, Any] = {
    "name": "bought", "outcome": "bought", "model": "conversion", "matters": 0.01, "value": 38.0,
    "higher_is_better": True,
}  # fmt: skip
SPENT: dict[str, Any] = {
    "name": "spent", "outcome": "spent", "model": "metric", "cuped": ["before"], "cap": 200, "matters": 0.5,
    "higher_is_better": True, "effect_unit": "EUR",
}  # fmt: skip
GUARDRAIL: dict[str, Any] = {
    "name": "returns", "outcome": "returned", "model": "conversion", "role": "guardrail", "higher_is_better": False,
    "margin": 0.02,
}  # fmt: skip
BREAKDOWNS = [["device"], ["country"], ["device", "customer"]]


def make_rows(n: int = 2400, *, effect: float = 0.1, harm: float = 0.0) -> pd.DataFrame:
    """Rows of a shop: phones buy `effect` more in the new arm, and everybody returns `harm` more."""
    rng = np.random.default_rng(3)
    rows = pd.DataFrame({
        "device": rng.choice(["mobile", "desktop"], n), "country": rng.choice(["AT", "DE", "FR"], n),
        "customer": rng.choice(["new", "old"], n), "arm": rng.choice(["old", "new"], n),
    })  # fmt: skip
    is_new = rows["arm"] == "new"
    rows["bought"] = rng.random(n) < 0.2 + effect * (is_new & (rows["device"] == "mobile"))
    rows["returned"] = rng.random(n) < 0.05 + harm * is_new
    rows["before"] = rng.gamma(2, 10, n).round(2)
    rows["spent"] = (rows["before"] / 2 + rng.gamma(2, 10, n) + 2 * is_new).round(2)
    return rows


def make_content(**changes: Any) -> dict[str, Any]:
    """The content of a plan with three metrics and three breakdowns; `changes` replace keys, None deletes them."""
    content = {
        "title": "New checkout", "breakdowns": BREAKDOWNS, "data": {"path": "rows.csv", "arm": "arm", "control": "old"},
        "sampling": {"draws": 400}, "metrics": [GOAL, SPENT, GUARDRAIL],
    }  # fmt: skip
    return {key: value for key, value in (content | changes).items() if value is not None}


def make_plan(**changes: Any) -> Plan:
    """The plan of `make_content`."""
    return Plan(**make_content(**changes))


def write_plan(folder: Path, rows: pd.DataFrame | None = None, **changes: Any) -> Path:
    """Write the plan and its rows into a folder."""
    plan_file = folder / "plan.toml"
    plan_file.write_text(write_toml_document(make_content(**changes)), encoding="utf-8")
    (make_rows() if rows is None else rows).to_csv(folder / "rows.csv", index=False)
    return plan_file
