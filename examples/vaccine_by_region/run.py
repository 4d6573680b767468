"""Does a vaccine protect in every region, and if not, why? Writes into results/vaccine_by_region/."""

from pathlib import Path

import bayes_hte as hte

HERE = Path(__file__).parent
OUT = Path("results/vaccine_by_region")


def main() -> None:
    """Show the regions first, then what the cold chain, the second dimension, explains of them."""
    by_region = hte.run(HERE / "region.toml")
    print(by_region.table()[["region", "raw", "effect", "ci_low", "ci_high"]].round(3).to_string(index=False))
    both = hte.run(HERE / "plan.toml")
    print(both.variance_shares().round(2).to_string(index=False))
    print(both.marginal("cold_chain").round(3).to_string(index=False))
    print(both.decide()[["region", "cold_chain", "decision", "why"]].to_string(index=False))
    both.report(OUT / "report.html")
    print(f"diagnosis {both.diagnosis}")


if __name__ == "__main__":
    main()
