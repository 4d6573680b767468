"""Write thornton.csv from the rows of the package causaldata (MIT licence).

    python examples/thornton/make_data.py

Rebecca L. Thornton (2008), The Demand for, and Impact of, Learning HIV Status, American Economic Review 98(5):
1829-63. Kept are the village, whether any money was offered, and whether the person came for the result of the
HIV test; missing values stay missing.
"""

from pathlib import Path

import pandas as pd
from causaldata import thornton_hiv

HERE = Path(__file__).parent


def rows() -> pd.DataFrame:
    """One row per person: village, incentive, got_results."""
    raw = thornton_hiv.load_pandas().data
    return pd.DataFrame(
        {
            "village": raw["villnum"].astype("Int64"),
            "incentive": raw["any"].map({0.0: "none", 1.0: "offered"}),
            "got_results": raw["got"].astype("Int64"),
        }
    )


if __name__ == "__main__":
    rows().to_csv(HERE / "thornton.csv", index=False, lineterminator="\n")
