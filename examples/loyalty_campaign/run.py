"""Who orders more for points, and what that costs in margin. Writes into results/loyalty_campaign/."""

from pathlib import Path

import bayes_hte as hte
from bayes_hte.plot import save

HERE = Path(__file__).parent
OUT = Path("results/loyalty_campaign")


def main() -> None:
    """Decide by orders with the margin as guardrail, compare policies in euros, and plan the next test."""
    analysis = hte.run(HERE / "plan.toml")
    print(analysis.decide()[["breakdown", "segment", "decision", "why"]].to_string(index=False))
    orders = analysis.fits["orders", ("frequency", "geography")]
    margin = analysis.fits["margin", ("frequency", "geography")]
    print(margin.table()[["frequency", "geography", "effect", "ci_low", "ci_high"]].round(2).to_string(index=False))
    policies = orders.policy()[["policy", "share_treated", "gain", "ci_low", "ci_high", "treats"]]
    print(policies.round(2).to_string(index=False))
    follow_up = orders.next_test(assurance=0.8)
    print(follow_up[["frequency", "geography", "units_now", "units_needed", "evsi"]].round(3).to_string(index=False))
    analysis.report(OUT / "report.html")
    save(orders.plot_policy(), OUT / "policy.png")
    print(f"diagnosis {orders.diagnosis}")


if __name__ == "__main__":
    main()
