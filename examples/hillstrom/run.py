"""Which e-mail for whom: the script that an analyst runs after the test. Writes into results/hillstrom/."""

from pathlib import Path

import bayes_hte as hte
from bayes_hte.plot import save

HERE = Path(__file__).parent
OUT = Path("results/hillstrom")


def main() -> None:
    """Fit the plan, print who gains from which e-mail, and write the report and the forest plot."""
    fit = hte.run(HERE / "plan.toml")
    table = fit.table()
    table["visits per 100"] = (100 * table["effect"]).round(1)
    print(table.pivot(index=["bought", "customer", "spent"], columns="arm", values="visits per 100"))
    print(fit.ate()[["arm", "effect", "ci_low", "ci_high"]].round(4).to_string(index=False))
    fit.report(OUT / "report.html")
    save(fit.plot_forest(arm="Women's e-mail"), OUT / "forest.png")
    print(f"diagnosis {fit.diagnosis}")


if __name__ == "__main__":
    main()
