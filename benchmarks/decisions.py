"""How many calls of decision rules are wrong, and whether the stated P(wrong) is what comes out.

    python benchmarks/decisions.py                     # 2,000 experiments of every scenario, a minute
    python benchmarks/decisions.py --experiments 200   # fewer, to look at

Experiments are those of decision_scenarios.py. Their posterior is integrated here by quadrature over the
between-segment SD, in closed form given it: no Monte-Carlo error, 2,000 experiments in seconds, and no code of the
package; a test holds fits of the package to it. Results go to results/decisions.json, the figure and the table of
decisions.md.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from decision_scenarios import POWERED_ERROR, SCENARIOS, SEGMENT_COUNTS, Experiment
from numpy.typing import NDArray
from scipy import special

import bayes_hte as hte
from bayes_hte.decisions.multiplicity import adjust_by_benjamini_hochberg, adjust_by_holm
from bayes_hte.decisions.verdicts import MOSTLY_BORROWED_FACTOR

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "decisions.json"
FIGURE = HERE / "results" / "decisions.svg"
PAGE = HERE / "decisions.md"
EXPERIMENTS = 2000
SEED = 20260315
CALL_PROB: Final = hte.Rule().ship[0].p
ALPHA: Final = 0.05
"""Two-sided level of the corrected tests, as they are reported."""
TAU_NODES, TAU_WEIGHTS = np.polynomial.legendre.leggauss(120)
MAX_TAU: Final = 6.0
"""Of the prior HalfNormal(1) one billionth lies above."""

type Floats = NDArray[np.float64]
type Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """What the pooled model says of experiments, axes (experiment, segment)."""

    p_positive: Floats
    pooling: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Experiments of one scenario and number of segments, axes (experiment, segment)."""

    true_effects: Floats
    raw_effects: Floats
    raw_errors: Floats
    shares: Floats

    @property
    def flat_p_positive(self) -> Floats:
        """P(> 0) of every segment on its own, under a flat prior."""
        return np.asarray(special.ndtr(self.raw_effects / self.raw_errors))


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """What a method calls, and the probability of being wrong that it states; axes (experiment, segment)."""

    ships: Flags
    stops: Flags
    p_wrong: Floats


def draw_batch(name: str, segment_count: int, experiments: int) -> Batch:
    """Draw experiments of a scenario, the same first ones whatever their number."""
    position = list(SCENARIOS).index(name)
    drawn: list[Experiment] = [
        SCENARIOS[name].draw_experiment(np.random.default_rng([SEED, position, segment_count, index]), segment_count)
        for index in range(experiments)
    ]
    return Batch(*(np.array([getattr(each, key) for each in drawn]) for key in Batch.__slots__))


def integrate_posterior(raw_effects: Floats, raw_errors: Floats) -> Posterior:
    """Integrate the normal model with mean ~ N(0, 1) and tau ~ HalfNormal(1), experiment by experiment.

    Given tau: w_s = 1 / (se_s² + tau²), mean | y ~ N(Σ w y / P, 1 / P) with P = 1 + Σ w; with b_s = se_s² / (se_s² +
    tau²) the effect of a segment is N(b_s M + (1 − b_s) y_s, (1 − b_s) se_s² + b_s² / P).
    """
    tau = MAX_TAU * (TAU_NODES + 1) / 2
    y, variance = raw_effects[:, None, :], raw_errors[:, None, :] ** 2
    # axes (experiment, tau, segment)
    total_variance = variance + tau[None, :, None] ** 2
    precision = 1 + (1 / total_variance).sum(axis=2)
    mean = (y / total_variance).sum(axis=2) / precision
    # log p(y | tau) + log p(tau), without constants
    log_density = -0.5 * (
        np.log(total_variance).sum(axis=2)
        + np.log(precision)
        + (y**2 / total_variance).sum(axis=2)
        - precision * mean**2
        + tau[None, :] ** 2
    )
    weights = np.exp(log_density - log_density.max(axis=1, keepdims=True)) * TAU_WEIGHTS
    weights /= weights.sum(axis=1, keepdims=True)
    borrowed = variance / total_variance
    effect = borrowed * mean[..., None] + (1 - borrowed) * y
    sd = np.sqrt((1 - borrowed) * variance + borrowed**2 / precision[..., None])
    p_positive = np.einsum("et,ets->es", weights, special.ndtr(effect / sd))
    return Posterior(p_positive, np.einsum("et,ets->es", weights, borrowed))


def call_by_probability(p_positive: Floats, may_call: Flags | bool = True) -> Calls:
    """Call what is more probable than the default rule asks."""
    ships, stops = (p_positive >= CALL_PROB) & may_call, (1 - p_positive >= CALL_PROB) & may_call
    return Calls(ships, stops, np.where(ships, 1 - p_positive, p_positive))


def call_pooled(batch: Batch) -> Calls:
    """Call by the default rule: nothing that is mostly borrowed."""
    posterior = integrate_posterior(batch.raw_effects, batch.raw_errors)
    return call_by_probability(posterior.p_positive, posterior.pooling <= MOSTLY_BORROWED_FACTOR)


def call_borrowed_too(batch: Batch) -> Calls:
    """Call by the pooled probabilities alone."""
    return call_by_probability(integrate_posterior(batch.raw_effects, batch.raw_errors).p_positive)


def call_unpooled(batch: Batch) -> Calls:
    """Call every segment on its own, at the same probability."""
    return call_by_probability(batch.flat_p_positive)


def call_by_tests(batch: Batch, adjust: Callable[[xr.DataArray], xr.DataArray]) -> Calls:
    """Call what a corrected two-sided test rejects, in the direction of its estimate."""
    p_values = 2 * special.ndtr(-abs(batch.raw_effects / batch.raw_errors))
    adjusted = np.array([adjust(xr.DataArray(row, dims="segment")).values for row in p_values])
    is_rejected, is_positive = adjusted <= ALPHA, batch.raw_effects > 0
    # A test states no probability of being wrong; that of a flat prior stands in.
    return Calls(
        is_rejected & is_positive,
        is_rejected & ~is_positive,
        np.minimum(batch.flat_p_positive, 1 - batch.flat_p_positive),
    )


def call_average(batch: Batch) -> Calls:
    """Ship to all, or stop everywhere, by the average effect."""
    average = (batch.shares * batch.raw_effects).sum(axis=1, keepdims=True)
    p_positive = special.ndtr(average / POWERED_ERROR)
    return call_by_probability(np.broadcast_to(p_positive, batch.raw_effects.shape))


METHODS: Final[dict[str, Callable[[Batch], Calls]]] = {
    "pooled rule": call_pooled,
    "pooled, borrowed too": call_borrowed_too,
    "no pooling": call_unpooled,
    "Holm": lambda batch: call_by_tests(batch, adjust_by_holm),
    "Benjamini–Hochberg": lambda batch: call_by_tests(batch, adjust_by_benjamini_hochberg),
    "all by the average": call_average,
}


def judge_calls(calls: Calls, true_effects: Floats) -> dict[str, Any]:
    """Judge calls by the truth: how many, how many wrong, what was stated, what was found.

    Returns
    -------
    dict
        calls and wrong per experiment; wrong_share of the calls with wrong_share_error, its standard error over
        experiments; stated, the mean P(wrong) of calls; any_wrong, the share of experiments with a wrong call; found,
        the share of true benefits that are shipped. None where there is nothing to divide by.
    """
    is_called = calls.ships | calls.stops
    is_wrong = (calls.ships & (true_effects <= 0)) | (calls.stops & (true_effects >= 0))
    call_count, wrong_count, helped_count = int(is_called.sum()), int(is_wrong.sum()), int((true_effects > 0).sum())
    share = wrong_count / call_count if call_count else None
    # Ratio of sums over independent experiments: se = √Σ (wrong_i − share · calls_i)² / Σ calls
    residuals = is_wrong.sum(axis=1) - (share or 0.0) * is_called.sum(axis=1)
    experiments = len(true_effects)
    return {
        "calls": call_count / experiments,
        "wrong": wrong_count / experiments,
        "wrong_share": share,
        "wrong_share_error": float(np.sqrt((residuals**2).sum())) / call_count if call_count else None,
        "stated": float(calls.p_wrong[is_called].mean()) if call_count else None,
        "any_wrong": float(is_wrong.any(axis=1).mean()),
        "found": int((calls.ships & (true_effects > 0)).sum()) / helped_count if helped_count else None,
    }


def run_scenario(name: str, segment_count: int, experiments: int) -> dict[str, Any]:
    """Judge every method in one scenario."""
    batch = draw_batch(name, segment_count, experiments)
    return {method: judge_calls(call(batch), batch.true_effects) for method, call in METHODS.items()}


def run_all(experiments: int) -> dict[str, Any]:
    """Judge every method in every scenario, with 8 and with 40 segments."""
    return {
        "experiments": experiments,
        "scenarios": {
            f"{name}, {count} segments": run_scenario(name, count, experiments)
            for name in SCENARIOS
            for count in SEGMENT_COUNTS
        },
    }


def format_percent(value: float | None, digits: int = 1) -> str:
    """Format a share in per cent, nothing where there is none."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def write_table(results: dict[str, Any]) -> str:
    """Write the table of all scenarios and methods."""
    lines = [
        "| scenario | method | calls | wrong, % of calls | stated, % | any wrong, % | benefits shipped, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, judged_by_method in results["scenarios"].items():
        for method, judged in judged_by_method.items():
            first = title if method == next(iter(METHODS)) else ""
            wrong = format_percent(judged["wrong_share"])
            if judged["wrong_share_error"] is not None:
                wrong += f" ± {format_percent(judged['wrong_share_error'])}"
            # What a test states of its calls is not its own.
            stated = "" if method in ("Holm", "Benjamini–Hochberg") else format_percent(judged["stated"])
            lines.append(
                f"| {first} | {method} | {judged['calls']:.2f} | {wrong} | {stated} | "
                f"{format_percent(judged['any_wrong'])} | {format_percent(judged['found'])} |"
            )
    return "\n".join(lines)


MARKERS: Final = {
    "pooled rule": ("o", "#1f5fa8"),
    "pooled, borrowed too": ("o", "#8fb8de"),
    "no pooling": ("s", "#c4512d"),
    "Holm": ("^", "#7a7a7a"),
    "Benjamini–Hochberg": ("v", "#b0b0b0"),
    "all by the average": ("D", "#d9a441"),
}


def draw_figure(results: dict[str, Any]) -> None:
    """Draw for every scenario the share of wrong calls, what the pooled rule stated, and the benefits shipped."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "decisions"
    titles = list(results["scenarios"])
    figure = Figure(figsize=(9.5, 4.8), layout="constrained")
    wrong_axes, found_axes = figure.subplots(1, 2, sharey=True)
    for row, title in enumerate(titles):
        judged_by_method = results["scenarios"][title]
        for method, (marker, colour) in MARKERS.items():
            judged = judged_by_method[method]
            for axes, key in ((wrong_axes, "wrong_share"), (found_axes, "found")):
                if judged[key]:
                    axes.plot(100 * judged[key], row, marker, color=colour, markersize=6)
        stated = judged_by_method["pooled rule"]["stated"]
        wrong_axes.plot(100 * stated, row, "|", color="#1f5fa8", markersize=16, markeredgewidth=1.5)
    for method, (marker, colour) in MARKERS.items():
        found_axes.plot([], [], marker, color=colour, label=method)
    found_axes.plot([], [], "|", color="#1f5fa8", markersize=12, label="stated by the pooled rule")
    ticks = [0.5, 1, 2, 5, 10, 20, 50, 100]
    wrong_axes.set(xscale="log", xlim=(0.4, 130), xticks=ticks, xlabel="wrong calls, % of calls")
    wrong_axes.set_xticklabels([f"{tick:g}" for tick in ticks])
    wrong_axes.minorticks_off()
    wrong_axes.set_yticks(range(len(titles)), titles)
    wrong_axes.invert_yaxis()
    found_axes.set(xlim=(-2, 60), xlabel="true benefits that are shipped, %")
    for axes in (wrong_axes, found_axes):
        axes.grid(axis="y", linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(FIGURE, metadata={"Date": None})


def write_results(results: dict[str, Any]) -> None:
    """Write numbers, figure, and the table into its page."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw_figure(results)
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split("<!-- decisions -->\n")[0], text.split("<!-- end of decisions -->")[1]
    table = write_table(results)
    PAGE.write_text(f"{before}<!-- decisions -->\n\n{table}\n\n<!-- end of decisions -->{after}", encoding="utf-8")


def main() -> None:
    """Run all scenarios; only a full run is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=EXPERIMENTS)
    experiments = parser.parse_args().experiments
    results = run_all(experiments)
    print(write_table(results))
    if experiments == EXPERIMENTS:
        write_results(results)


if __name__ == "__main__":
    main()
