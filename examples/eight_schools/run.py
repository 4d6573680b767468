"""Eight schools, from eight published numbers. Writes into results/eight_schools/."""

from pathlib import Path

import bayes_hte as hte
from bayes_hte.plot import save

HERE = Path(__file__).parent
OUT = Path("results/eight_schools")


def main() -> None:
    """Fit the plan, print each school's chance of a gain, and write the report and the forest plot."""
    fit = hte.run(HERE / "plan.toml")
    print(fit.table()[["school", "raw", "effect", "ci_low", "ci_high", "p_positive", "pooling"]].round(2))
    print(fit.contrasts("rest")[["segment", "difference", "p_positive"]].round(2).to_string(index=False))
    fit.report(OUT / "report.html")
    save(fit.plot_forest(), OUT / "forest.png")
    print(f"diagnosis {fit.diagnosis}")


if __name__ == "__main__":
    main()
