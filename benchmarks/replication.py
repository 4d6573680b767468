"""Is a second test's decision as probable as `Fit.replication` says? Second tests drawn as counts, each fitted anew.

python benchmarks/replication.py [REPEATS]    writes benchmarks/results/replication.md
"""

import sys
from pathlib import Path

import numpy as np

import bayes_hte as hte

RULE = hte.Rule(matters=0.005)
REPEATS = 150


def refit_second_tests(fit: hte.Fit, repeats: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Count how often second tests show the sign, and lead to the decision, of the first: shares by segment."""
    posterior, rng = fit.tree["posterior"].to_dataset(), np.random.default_rng(seed)
    baseline = posterior["baseline"].stack(sample=("chain", "draw")).transpose("sample", "segment").values
    effect = posterior["effect"].isel(arm=0).stack(sample=("chain", "draw")).transpose("sample", "segment").values
    decisions, signs = fit.decide(RULE)["decision"].to_numpy(str), np.sign(fit.table()["raw"])
    same_sign, same_decision = np.zeros(len(signs)), np.zeros(len(signs))
    for draw in rng.integers(len(effect), size=repeats):
        rates = 1 / (1 + np.exp(-np.stack([baseline[draw], baseline[draw] + effect[draw]], axis=1)))
        cells = fit.cells.copy(deep=True)
        cells["events"] = (("segment", "arm"), rng.binomial(cells["n"].values, rates))
        second = hte.fit(cells, fit.model, seed=1, draws=1000)
        same_sign += np.sign(second.table()["raw"]) == signs
        same_decision += second.decide(RULE)["decision"].to_numpy(str) == decisions
    return same_sign / repeats, same_decision / repeats


def write_table(repeats: int = REPEATS) -> str:
    """The shares among refitted second tests beside what is predicted, as Markdown."""
    fit = hte.example_fit()
    predicted = fit.replication(rule=RULE)
    same_sign, same_decision = refit_second_tests(fit, repeats)
    lines = [
        "# Second tests, predicted and refitted",
        "",
        f"{repeats} second tests of the example, drawn as counts from the posterior and fitted by the exact engine.",
        f"Shares have a standard error of up to {0.5 / repeats**0.5:.3f}. Script: `benchmarks/replication.py`.",
        "",
        "| segment | decision | same sign, predicted | refitted | same decision, predicted | refitted |",
        "|---|---|---|---|---|---|",
    ]
    for row, sign, decision in zip(predicted.to_dict("records"), same_sign, same_decision, strict=True):
        lines.append(
            f"| {row['device']} · {row['customer']} | {row['decision']} | {row['p_same_sign']:.2f} | {sign:.2f} "
            f"| {row['p_same_decision']:.2f} | {decision:.2f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    page = write_table(int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS)
    (Path(__file__).parent / "results" / "replication.md").write_text(page, encoding="utf-8")
