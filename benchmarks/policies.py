"""What policies lose against knowing the truth: pooled ones, and those that people choose without pooling.

    python benchmarks/policies.py                     # all scenarios, ten minutes on one core that is free
    python benchmarks/policies.py null "few winners"  # only these
    python benchmarks/policies.py --draw              # the table and the figure from the stored results

2,000 experiments of each scenario of `decision_scenarios`, with 8 and with 40 segments. Treating a unit costs a quarter
of the planned effect, so that shipping what does nothing is a loss. The regret of a policy is what it gains less than
one that knows every effect, per unit of the population, in units of the planned effect. Results go to
benchmarks/results/policies.json, the table into the README, the figure to benchmarks/results/policies.svg.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from decision_scenarios import MODEL, SCENARIOS, SEGMENT_COUNTS, Experiment, Floats
from scipy.stats import norm

import bayes_hte as hte
from bayes_hte._support.phrases import format_number
from bayes_hte.decisions.policy.valuation import check_terms, price_choice

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "policies.json"
FIGURE = HERE / "results" / "policies.svg"
README = HERE / "README.md"
TABLE_START, TABLE_END = "<!-- policies -->", "<!-- end of policies -->"
REPETITIONS: Final = 2000
FIT_DRAWS: Final = 1000
KEPT_REPETITIONS: Final = 3
"""Regrets and promises of the first experiments are kept one by one: a test makes them again."""
COST: Final = 0.25
SHIP_PROB, ERROR_RATE = 0.95, 0.05

METHODS: Final = {
    "pooled policy": "posterior expected gain above the cost",
    "pooled rule": "P(effect > 0) > .95, and expected gain above the cost",
    "no pooling": "raw estimate above the cost",
    "each tested": "raw estimate above 0 at 5 %, one-sided",
    "Benjamini–Hochberg": "the same, false discovery rate of 5 %",
    "Holm": "the same, 5 % for any wrong one",
    "ship all on average": "everybody if the raw average is above the cost, else nobody",
}

type Record = dict[str, Any]


def reject_by_holm(p_values: Floats) -> np.ndarray:
    """Tell which hypotheses Holm's procedure rejects at the error rate."""
    order = np.argsort(p_values)
    # The i-th smallest is compared with α / (m − i + 1), until the first that fails.
    passes = p_values[order] <= ERROR_RATE / (len(p_values) - np.arange(len(p_values)))
    rejected = np.zeros(len(p_values), dtype=bool)
    rejected[order[: int(np.argmin([*passes, False]))]] = True
    return rejected


def reject_by_benjamini_hochberg(p_values: Floats) -> np.ndarray:
    """Tell which hypotheses Benjamini and Hochberg's procedure rejects at the error rate."""
    order = np.argsort(p_values)
    # All up to the last that is at most i α / m.
    passes = p_values[order] <= ERROR_RATE * np.arange(1, len(p_values) + 1) / len(p_values)
    rejected = np.zeros(len(p_values), dtype=bool)
    rejected[order[: len(p_values) - int(np.argmax(passes[::-1])) if passes.any() else 0]] = True
    return rejected


def choose_segments(experiment: Experiment) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Choose the segments that every method treats, and state what the pooled policy says of itself.

    Returns
    -------
    tuple
        Treated segments by method; ``gain`` and ``p_beats_all``, as `Fit.policy` states them of the chosen segments.
    """
    fit = hte.fit(experiment.build_cells(), MODEL, sampler="exact", draws=FIT_DRAWS, seed=1)
    fit_tree = fit.tree
    problem = price_choice(fit_tree, hte.Rule(cost=COST), check_terms(fit_tree)).problem
    allocation = problem.allocate_best()
    everybody = problem.allocate_everybody(str(problem.net_gain["arm"].values[0]))
    p_positive = fit_tree["sign"].to_dataset()["p_positive"].values[:, 0]
    pooled = allocation.values[:, 0] > 0
    raw, shares = experiment.raw_effects, experiment.shares
    p_values = norm.sf(raw / experiment.raw_errors)
    chosen = {
        "pooled policy": pooled,
        "pooled rule": pooled & (p_positive > SHIP_PROB),
        "no pooling": raw > COST,
        "each tested": p_values < ERROR_RATE,
        "Benjamini–Hochberg": reject_by_benjamini_hochberg(p_values),
        "Holm": reject_by_holm(p_values),
        "ship all on average": np.full(len(raw), shares @ raw > COST),
    }
    difference = problem.compute_gain(allocation - everybody)
    return chosen, {
        "gain": float(problem.compute_gain(allocation).mean()),
        "p_beats_all": float((difference > 0).mean()) if not pooled.all() else float("nan"),
    }


def try_experiment(scenario_name: str, segment_count: int, repetition: int) -> Record:
    """Try every method on one experiment: its regret, gain, share treated, and what it promises."""
    scenario_seed = list(SCENARIOS).index(scenario_name)
    rng = np.random.default_rng([scenario_seed, segment_count, repetition])
    experiment = SCENARIOS[scenario_name].draw_experiment(rng, segment_count)
    chosen, stated = choose_segments(experiment)
    weighted_net = experiment.shares * (experiment.true_effects - COST)
    weighted_raw = experiment.shares * (experiment.raw_effects - COST)
    best_gain = weighted_net[weighted_net > 0].sum()
    record: Record = {
        name: {
            "regret": best_gain - weighted_net[treated].sum(),
            "gain": weighted_net[treated].sum(),
            "promised": stated["gain"] if name == "pooled policy" else weighted_raw[treated].sum(),
            "treated": experiment.shares[treated].sum(),
        }
        for name, treated in chosen.items()
    }
    beats_all = weighted_net[chosen["pooled policy"]].sum() > weighted_net.sum()
    return record | {"best_gain": best_gain, "p_beats_all": stated["p_beats_all"], "beats_all": bool(beats_all)}


def summarise_experiments(records: list[Record]) -> Record:
    """Summarise experiments: means over repetitions, and the standard error of the mean regret."""
    methods: Record = {}
    for name in METHODS:
        columns = {key: np.array([record[name][key] for record in records]) for key in records[0][name]}
        methods[name] = {key: float(values.mean()) for key, values in columns.items()}
        methods[name]["regret_se"] = float(columns["regret"].std(ddof=1) / np.sqrt(len(records)))
        for key in ("regret", "promised"):
            methods[name][f"first_{key}"] = columns[key][:KEPT_REPETITIONS].tolist()
    # Where everybody is chosen there is no targeting to beat shipping to all.
    targeted = [record for record in records if np.isfinite(record["p_beats_all"])]
    return {
        "repetitions": len(records),
        "best_gain": float(np.mean([record["best_gain"] for record in records])),
        "targeted": len(targeted),
        "stated_p_beats_all": float(np.mean([record["p_beats_all"] for record in targeted])),
        "achieved_beats_all": float(np.mean([record["beats_all"] for record in targeted])),
        "methods": methods,
    }


def write_table(results: Mapping[str, Mapping[str, Record]]) -> str:
    """Write the mean regrets as a Markdown table, and below it what policies promise and keep."""
    cells = [
        (name, count) for name in SCENARIOS for count in map(str, SEGMENT_COUNTS) if count in results.get(name, {})
    ]
    lines = [
        "| regret, % of the planned effect | " + " | ".join(f"{name}, {count}" for name, count in cells) + " |",
        "|---|" + "---|" * len(cells),
    ]
    for method in METHODS:
        regrets = [100 * results[name][count]["methods"][method]["regret"] for name, count in cells]
        lines.append(f"| {method} | " + " | ".join(f"{regret:.1f}" for regret in regrets) + " |")
    best_gains = [100 * results[name][count]["best_gain"] for name, count in cells]
    lines.append("| *gain of knowing every effect* | " + " | ".join(f"{gain:.0f}" for gain in best_gains) + " |")
    largest_error = max(
        100 * results[name][count]["methods"][method]["regret_se"] for name, count in cells for method in METHODS
    )
    lines += [
        "",
        f"Standard errors are at most {largest_error:.1f}.",
        "",
        "| promised → kept, % of the planned effect | "
        + " | ".join(f"{name}, {count}" for name, count in cells)
        + " |",
        "|---|" + "---|" * len(cells),
    ]
    for method in ("pooled policy", "no pooling", "Holm"):
        entries = [results[name][count]["methods"][method] for name, count in cells]
        texts = [
            " → ".join(format_number(100 * entry[key], 0, sign=False) for key in ("promised", "gain"))
            for entry in entries
        ]
        lines.append(f"| {method} | " + " | ".join(texts) + " |")
    beats = [
        f"{results[name][count]['stated_p_beats_all']:.2f} → {results[name][count]['achieved_beats_all']:.2f}"
        for name, count in cells
    ]
    lines.append("| *P(beats shipping to all)* | " + " | ".join(beats) + " |")
    return "\n".join(lines)


def draw_figure(results: Mapping[str, Mapping[str, Record]]) -> Any:
    """Draw mean regrets by scenario, a dot per method and number of segments."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    names = [name for name in SCENARIOS if name in results]
    all_axes = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
    methods = list(METHODS)[::-1]
    for axes, name in zip(all_axes, names, strict=True):
        for count, marker in zip(map(str, SEGMENT_COUNTS), ("o", "s"), strict=True):
            entries = [results[name][count]["methods"][method] for method in methods]
            axes.errorbar(
                [100 * entry["regret"] for entry in entries],
                np.arange(len(methods)) + (0.12 if marker == "o" else -0.12),
                xerr=[200 * entry["regret_se"] for entry in entries],
                fmt=marker,
                markersize=4.5,
                linewidth=1.0,
                color="#17508f" if marker == "o" else "#b04a0c",
                label=f"{count} segments",
            )
        axes.set_title(name, fontsize=10)
        axes.set_xlim(left=0)
        axes.grid(axis="x", color="#e4e8ec", linewidth=0.7)
        axes.tick_params(labelsize=9, length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    all_axes[0].set_yticks(range(len(methods)), methods)
    figure.supxlabel("mean regret per unit, % of the planned effect (± 2 standard errors)", fontsize=10)
    figure.legend(
        *all_axes[0].get_legend_handles_labels(), fontsize=9, frameon=False, loc="outside upper right", ncols=2
    )
    return figure


def renew_page(results: Mapping[str, Mapping[str, Record]]) -> None:
    """Put the table into the README, and write the figure."""
    page = README.read_text(encoding="utf-8")
    before, _, rest = page.partition(TABLE_START)
    after = rest.partition(TABLE_END)[2]
    README.write_text(f"{before}{TABLE_START}\n\n{write_table(results)}\n\n{TABLE_END}{after}", encoding="utf-8")
    # Text stays text, and the same results give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "policies"}):
        draw_figure(results).savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    """Run the scenarios that are named, and renew results, table and figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS], metavar="scenario")
    parser.add_argument("--segments", type=int, choices=SEGMENT_COUNTS, help="only with so many; by default all")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--draw", action="store_true", help="only the table and the figure, from the stored results")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in [] if arguments.draw else arguments.scenarios or list(SCENARIOS):
        for count in SEGMENT_COUNTS if arguments.segments is None else (arguments.segments,):
            records = [try_experiment(name, count, repetition) for repetition in range(arguments.repetitions)]
            results.setdefault(name, {})[str(count)] = summarise_experiments(records)
            # After each cell: whoever stops it keeps what was computed.
            RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    renew_page(results)


if __name__ == "__main__":
    main()
