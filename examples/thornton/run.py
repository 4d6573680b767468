"""A payment for learning one's HIV result, village by village. Writes into results/thornton/."""

from pathlib import Path

import bayes_hte as hte
from bayes_hte.plot import save

HERE = Path(__file__).parent
OUT = Path("results/thornton")


def main() -> None:
    """Show what pooling does to small villages: raw differences from −1 to 1, pooled ones that can be believed."""
    fit = hte.run(HERE / "plan.toml")
    table = fit.table()
    print(table[["raw", "effect"]].describe().loc[["count", "min", "max", "std"]].round(2))
    print(fit.heterogeneity()[["quantity", "value", "ci_low", "ci_high"]].round(3).to_string(index=False))
    print(fit.predict_new_segment().round(3).to_string(index=False))
    fit.report(OUT / "report.html")
    save(fit.plot_shrinkage(), OUT / "shrinkage.png")
    print(f"diagnosis {fit.diagnosis}")


if __name__ == "__main__":
    main()
