"""Which pupils gain from a learning platform, and what a second trial adds. Writes into results/learning_platform/."""

from pathlib import Path

import bayes_hte as hte

HERE = Path(__file__).parent
OUT = Path("results/learning_platform")


def main() -> None:
    """Decide after the first trial, then put both trials together and say where they disagree."""
    first, second = hte.run(HERE / "plan.toml"), hte.run(HERE / "second.toml")
    print(first.decide()[["self_regulation", "year", "decision", "why"]].to_string(index=False))
    print(
        first.policy()[["policy", "share_treated", "gain", "ci_low", "ci_high", "treats"]]
        .round(2)
        .to_string(index=False)
    )
    print(first.next_test(assurance=0.8)[["self_regulation", "year", "units_needed", "why"]].to_string(index=False))
    both = hte.combine(first, second)
    compared = both.compare_tests()
    print(
        compared[["self_regulation", "year", "first", "second", "difference", "p_differ", "disagree"]]
        .round(3)
        .to_string()
    )
    first.report(OUT / "report.html")
    print(f"diagnosis {both.diagnosis}")


if __name__ == "__main__":
    main()
