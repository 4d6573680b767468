"""For whom is the new pricing page better, and what is it worth? Writes into results/pricing_page/."""

from pathlib import Path

import bayes_hte as hte
from bayes_hte.plot import save

HERE = Path(__file__).parent
OUT = Path("results/pricing_page")


def main() -> None:
    """Decide for each device, and compare shipping to all with shipping to those that gain, and plan the next test."""
    fit = hte.run(HERE / "plan.toml")
    print(fit.table()[["device", "raw", "effect", "ci_low", "ci_high", "p_positive"]].round(4).to_string(index=False))
    print(fit.decide()[["device", "decision", "why"]].to_string(index=False))
    print(
        fit.policy()[["policy", "share_treated", "gain", "ci_low", "ci_high", "p_best"]].round(3).to_string(index=False)
    )
    print(fit.next_test(assurance=0.8)[["device", "units_now", "units_needed", "why"]].to_string(index=False))
    fit.report(OUT / "report.html")
    save(fit.plot_policy(), OUT / "policy.png")
    print(f"diagnosis {fit.diagnosis}")


if __name__ == "__main__":
    main()
