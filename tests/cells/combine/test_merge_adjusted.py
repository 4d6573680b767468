"""merge refuses means that were adjusted otherwise, and says how."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import from_rows, merge
from bayes_hte.errors import DataError


def people(n: int = 240) -> pd.DataFrame:
    """Units in villages, with two covariates and sizes."""
    draw = np.random.default_rng(5)
    rows = pd.DataFrame({name: draw.gamma(2, 1, n) for name in ("y", "age", "before", "views")})
    villages = draw.integers(0, 40, n)
    return rows.assign(
        village=villages, arm=np.array(["old", "new"])[villages % 2], device=draw.choice(["tv", "web"], n)
    )


def read(**asked: Any) -> xr.Dataset:
    return from_rows(people(), outcome="y", arm="arm", control="old", segments=["device"], **asked)


DIFFERENT = [
    ({"weights": "views"}, {"weights": "age"}, "'weights: views' in table 1, 'weights: age' in table 2"),
    ({}, {"weights": "views"}, "'none' in table 1, 'weights: views' in table 2"),
    ({"cuped": "age"}, {"cuped": "before"}, "'CUPED: age' in table 1, 'CUPED: before' in table 2"),
    ({"cuped": ["age", "before"]}, {"cuped": ["before", "age"]}, "'CUPED: age, before' in table 1, 'CUPED: be"),
    ({"cuped": "age", "balance": ["before"]}, {"cuped": "before", "balance": ["age"]}, "'CUPED: age' in table 1"),
    ({"weights": "views"}, {"cluster": "village"}, "'weights: views' in table 1, 'clusters: village' in table 2"),
    ({"cuped": "age"}, {"cuped": "age", "cluster": "village"}, "'clusters: village; CUPED: age' in table 2"),
    (
        {"denominator": "views"},
        {"denominator": "views", "cluster": "village"},
        "'ratio: views' in table 1, 'ratio: views; clusters: village' in table 2",
    ),
]


@pytest.mark.parametrize(("one", "other", "message"), DIFFERENT, ids=[message for *_, message in DIFFERENT])
def test_means_adjusted_otherwise_cannot_be_merged(one, other, message):
    with pytest.raises(DataError, match="tables with different adjustment cannot be merged") as caught:
        merge(read(**one), read(**other))
    assert message in str(caught.value)


def test_other_columns_for_the_check_of_balance_are_no_other_adjustment():
    one, other = read(cuped="age", balance=["before"]), read(cuped="age", balance=["views"])
    merged = merge(one, other)
    assert merged["n"].sum().item() == 480
    assert "pre_n" not in merged
