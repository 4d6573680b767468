"""A long table of cells of several problems, and the comparison of result tables from different engines."""

from typing import Any

import numpy as np
import pandas as pd

KEYS = ["experiment", "metric"]
PROBLEMS: list[tuple[int, str]] = [(1, "bought"), (1, "returned"), (2, "bought")]
BROKEN = (3, "bought")
"""The key of a problem without a control."""


def long_table(seed: int = 7) -> pd.DataFrame:
    """Three sound problems of three segments and two arms, and one that has no control; rows in no order."""
    random = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = [(*BROKEN, segment, "new", 50, 9) for segment in ("mobile", "tv")]
    for experiment, metric in PROBLEMS:
        for segment, users in (("mobile", 4000), ("desktop", 2500), ("tv", 90)):
            for arm, rate in (("control", 0.10), ("new", 0.12)):
                rows.append((experiment, metric, segment, arm, users, int(random.binomial(users, rate))))
    table = pd.DataFrame(rows, columns=[*KEYS, "segment", "arm", "users", "buyers"])
    return table.sample(frac=1, random_state=seed, ignore_index=True)


def records(results: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a result as plain values, in an order that no engine chooses; missing values are None."""
    plain = results.astype(object).where(results.notna(), None)
    rows = [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]
    order = [*KEYS, "row", "segment", "arm"]
    return sorted(rows, key=lambda row: [str(row[name]) for name in order])
