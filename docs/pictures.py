"""Draw the pictures that the documents show: `python docs/pictures.py` (fits the Hillstrom example, half a minute)."""

from pathlib import Path

import bayes_hte as hte
from bayes_hte.plot import save

HERE = Path(__file__).parent


def main() -> None:
    """The forest plot of the README, and the policy of the example fit."""
    fit = hte.run(HERE.parent / "examples" / "hillstrom" / "plan.toml")
    save(fit.plot_forest(arm="Women's e-mail"), HERE / "forest.svg")
    axes = hte.example_fit().plot_policy(hte.Rule(cost=0.005), title="Who should get the short checkout?")
    save(axes.figure, HERE / "policy.svg")


if __name__ == "__main__":
    main()
