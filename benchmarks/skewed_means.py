"""How right the mean of a skewed outcome is: bias, coverage and error of the models that can be asked for it.

    python benchmarks/skewed_means.py            # all designs, nine minutes on one core; or only those that are named

Forty segments of 500 to 8,000 units an arm, about 1 % of whom buy. Buyers are drawn by cell and reduced to their
moments at once, so that no rows of the others are needed. Three models and the plain differences are asked of every
experiment; results go to benchmarks/results/skewed_means.json and into the table of the README.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

import bayes_hte as hte
from bayes_hte.estimands.effects import compute_arm_means, get_fitted_family, select_parameters

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "skewed_means.json"
README = HERE / "README.md"
REPETITIONS = 100
FIT_DRAWS = 1000
KEPT_REPETITIONS = 2
"""Average effects of the first experiments are kept one by one: a test makes them again."""
UNITS_PER_ARM = np.geomspace(500, 8000, 40).round().astype(int)
"""Sizes of segments, smallest first: a third of them is a slice."""
BASE_RATE = 0.01
NORMAL_QUANTILE = 1.959964
"""Half the width of a 95 % interval, in standard errors."""

type Rng = np.random.Generator
type Floats = NDArray[np.float64]


def draw_lognormal_amounts(rng: Rng, count: int, sigma: float) -> Floats:
    """Draw log-normal amounts with the mean exp(4), whatever their skewness."""
    # E[y] = exp(mu + sigma² / 2) = exp(4)
    return rng.lognormal(4 - sigma**2 / 2, sigma, count)


def draw_gamma_amounts(rng: Rng, count: int, sigma: float) -> Floats:
    """Draw amounts with the same mean from a gamma distribution of shape 1/2: many that are nearly 0."""
    return rng.gamma(0.5, 2 * np.exp(4), count)


def draw_two_prices(rng: Rng, count: int, sigma: float) -> Floats:
    """Draw prices: 10 for nine in ten buyers, else such that the mean is the same, about 456."""
    return np.where(rng.random(count) < 0.9, 10.0, 10 * np.exp(4) - 90)


@dataclass(frozen=True, slots=True)
class Design:
    """A world to simulate: how base rates and effects differ between segments, and what buyers pay."""

    title: str
    base_sd: float = 0.3
    """SD between segments of the logarithm of the share of buyers."""
    effect_sd: float = 0.0
    """SD between segments of the logarithm of the factor by which the treatment multiplies it."""
    lift: float = 0.1
    """Average of that factor over segments, less 1."""
    treated_sigma: float = 1.0
    """SD of the logarithm of amounts in the treated arm; 1 in the control."""
    draw_amounts: Callable[[Rng, int, float], Floats] = draw_lognormal_amounts


@dataclass(frozen=True, slots=True)
class Experiment:
    """Cells of a simulated experiment with the true control means and effects of its segments."""

    cells: xr.Dataset
    control_means: Floats
    effects: Floats


@dataclass(frozen=True, slots=True)
class Answer:
    """Estimates of a model with lower and upper ends of their 95 % intervals: [3] for the average, [segment, 3]."""

    average: Floats
    segments: Floats
    control_mean: float
    says_so: bool


DESIGNS = {
    "same": Design("base rates SD .3, same effect"),
    "differing": Design("base rates SD .3, effects SD .3", effect_sd=0.3),
    "wide": Design("base rates SD 1, same effect", base_sd=1.0),
    "wide_differing": Design("base rates SD 1, effects SD .3", base_sd=1.0, effect_sd=0.3),
    "lift": Design("lift 50 %", lift=0.5),
    "skewed": Design("treated arm more skewed, same mean", treated_sigma=1.5),
    "gamma": Design("amounts gamma(.5)", draw_amounts=draw_gamma_amounts),
    "prices": Design("two prices", draw_amounts=draw_two_prices),
}
PER_CELL = hte.read_model("metric").model_copy(update={"unit_variance": "per_cell"})
MODELS = {"metric": "metric", "metric, own variances": PER_CELL, "revenue": "revenue"}
PLAIN = "plain differences"


def measure_cell(amounts: Floats, n: int) -> dict[str, float]:
    """Measure n, mean and SD of all units, and number, mean and SD of the logarithms of those that pay."""
    mean = amounts.sum() / n
    # Σ (y − mean)² = Σ y² − n mean²; those who do not pay add to n alone
    variance = (np.square(amounts).sum() - n * mean**2) / (n - 1)
    logs, count = np.log(amounts), amounts.size
    return {
        "n": n, "mean": mean, "sd": variance**0.5, "positive": count,
        "log_mean": logs.mean() if count else np.nan,
        "log_sd": logs.std(ddof=1) if count > 1 else 0.0,
    }  # fmt: skip


def simulate_experiment(design: Design, rng: Rng) -> Experiment:
    """Simulate an experiment: base rates, effects and buyers anew."""
    size = UNITS_PER_ARM.size
    control_rates = BASE_RATE * np.exp(rng.normal(0, design.base_sd, size))
    # The factor's mean is 1 + lift: a log-normal factor has the mean exp(sd² / 2) times its median.
    factors = (1 + design.lift) * np.exp(rng.normal(-(design.effect_sd**2) / 2, design.effect_sd, size))
    treated_rates = np.minimum(control_rates * factors, 1.0)  # one of these 32,000 segments is above it
    rows = [
        {"segment": f"s{segment}", "arm": arm}
        | measure_cell(design.draw_amounts(rng, rng.binomial(n, rate), sigma), int(n))
        for segment, n in enumerate(UNITS_PER_ARM)
        for arm, rate, sigma in (
            ("old", control_rates[segment], 1.0),
            ("new", treated_rates[segment], design.treated_sigma),
        )
    ]
    columns = {name: name for name in ("n", "mean", "sd", "positive", "log_mean", "log_sd")}
    cells = hte.cells.from_summary(pd.DataFrame(rows), arm="arm", control="old", segments=["segment"], **columns)
    # E[y] = rate exp(4)
    return Experiment(cells, control_rates * np.exp(4), (treated_rates - control_rates) * np.exp(4))


def answer_by_model(cells: xr.Dataset, model: str | hte.Model, seed: int) -> Answer:
    """Fit a model, and read what a user would read."""
    fit = hte.fit(cells, model, draws=FIT_DRAWS, seed=seed)
    columns = ["effect", "ci_low", "ci_high"]
    control_mean, _ = compute_arm_means(get_fitted_family(fit.tree), select_parameters(fit.tree), fit.cells)
    segment_means = control_mean.mean(("chain", "draw")).sel(segment=cells["segment"])
    table = fit.table("absolute").set_index("segment").loc[cells["segment"].values]
    return Answer(
        fit.ate("absolute")[columns].to_numpy(float)[0],
        table[columns].to_numpy(float),
        float(np.average(segment_means, weights=UNITS_PER_ARM)),
        not fit.diagnosis.ok,
    )


def answer_plainly(cells: xr.Dataset) -> Answer:
    """Take the differences of means by segment, with standard errors of their own, and their average by size."""
    means, sizes = cells["mean"].values, cells["n"].values
    differences = means[:, 1] - means[:, 0]
    # var of a difference = s²_old / n_old + s²_new / n_new, where s² = ss / (n − 1)
    variances = (cells["ss"].values / (sizes - 1) / sizes).sum(axis=1)
    shares = UNITS_PER_ARM / UNITS_PER_ARM.sum()
    ends = np.array([0.0, -NORMAL_QUANTILE, NORMAL_QUANTILE])
    return Answer(
        shares @ differences + ends * (shares**2 @ variances) ** 0.5,
        differences[:, None] + ends * variances[:, None] ** 0.5,
        float(shares @ means[:, 0]),
        says_so=False,
    )


def answer_by_all(name: str, repetition: int) -> tuple[Experiment, dict[str, Answer]]:
    """Simulate the experiment of that number in a design, and ask every model."""
    rng = np.random.default_rng([list(DESIGNS).index(name), repetition])
    experiment = simulate_experiment(DESIGNS[name], rng)
    answers = {title: answer_by_model(experiment.cells, model, repetition) for title, model in MODELS.items()}
    return experiment, answers | {PLAIN: answer_plainly(experiment.cells)}


def is_covered(truth: Floats, estimates: Floats) -> NDArray[np.bool_]:
    """Tell whether intervals hold the truth; the last axis of estimates is estimate, lower and upper end."""
    return (estimates[..., 1] <= truth) & (truth <= estimates[..., 2])


def estimate_mean(values: Floats) -> list[float]:
    """Estimate a mean over repetitions and its Monte-Carlo standard error, SD / √repetitions."""
    return [float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)]


def judge_answers(experiments: list[Experiment], answers: list[Answer]) -> dict[str, object]:
    """Judge the answers of one model over all repetitions of a design."""
    shares = UNITS_PER_ARM / UNITS_PER_ARM.sum()
    true_average = np.array([shares @ experiment.effects for experiment in experiments])
    true_control = np.array([shares @ experiment.control_means for experiment in experiments])
    true_effects = np.array([experiment.effects for experiment in experiments])
    averages, segments = (np.array([getattr(answer, part) for answer in answers]) for part in ("average", "segments"))
    control_means = np.array([answer.control_mean for answer in answers])
    squared_errors = (segments[..., 0] - true_effects) ** 2
    return {
        "average_bias": estimate_mean(averages[:, 0] - true_average),
        "average_covered": float(is_covered(true_average, averages).mean()),
        "baseline_bias": estimate_mean(control_means / true_control - 1),
        # Segments of one experiment share their means: the error is that of experiments.
        "segments_covered": estimate_mean(is_covered(true_effects, segments).mean(axis=1)),
        "error_by_third": [float(third.mean() ** 0.5) for third in np.array_split(squared_errors, 3, axis=1)],
        "says_so": float(np.mean([answer.says_so for answer in answers])),
        "first": averages[:KEPT_REPETITIONS].tolist(),
    }


def run_design(name: str, repetitions: int = REPETITIONS) -> dict[str, object]:
    """Simulate a design, and judge every model."""
    outcomes = [answer_by_all(name, repetition) for repetition in range(repetitions)]
    experiments = [experiment for experiment, _ in outcomes]
    shares = UNITS_PER_ARM / UNITS_PER_ARM.sum()
    return {
        "repetitions": repetitions,
        "true_average": float(np.mean([shares @ experiment.effects for experiment in experiments])),
        "models": {
            title: judge_answers(experiments, [answers[title] for _, answers in outcomes]) for title in (*MODELS, PLAIN)
        },
    }


def format_number(value: float, digits: int) -> str:
    """Format a number without the 0 before the point, with a minus sign."""
    rounded = round(value, digits) + 0.0  # −0.0 + 0.0 = 0.0: nothing has a sign
    text = f"{rounded:.{digits}f}"
    return (text.replace("0.", ".", 1) if abs(rounded) < 1 else text).replace("-", "−")


def format_row(title: str, model: str, judged: dict[str, object]) -> str:
    """Format a row of the table: the judgement of one model in one design."""
    bias, error = judged["average_bias"]  # type: ignore[misc]
    baseline, baseline_error = (100 * value for value in judged["baseline_bias"])  # type: ignore[attr-defined]
    covered, covered_error = judged["segments_covered"]  # type: ignore[misc]
    thirds = ", ".join(format_number(value, 2) for value in judged["error_by_third"])  # type: ignore[attr-defined]
    fields = [
        title,
        model,
        f"{format_number(bias, 3)} ± {format_number(error, 3)}",
        format_number(judged["average_covered"], 2),  # type: ignore[arg-type]
        f"{round(baseline, 1) + 0.0:.1f} ± {baseline_error:.1f} %".replace("-", "−"),
        f"{format_number(covered, 3)} ± {format_number(covered_error, 3)}",
        thirds,
        "" if model == PLAIN else f"{100 * judged['says_so']:.0f} %",  # type: ignore[operator]
    ]
    return f"| {' | '.join(fields)} |"


def write_table(results: dict[str, dict[str, object]]) -> str:
    """Write the table of all designs and models."""
    lines = [
        "| design (true ATE) | asked of | ATE bias | ATE covered | baseline bias | segments covered "
        "| error in the small, middle, large third | fit says so |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, design in DESIGNS.items():
        if name in results:
            truth = format_number(results[name]["true_average"], 3)  # type: ignore[arg-type]
            for model, judged in results[name]["models"].items():  # type: ignore[attr-defined]
                is_first = model == next(iter(MODELS))
                lines.append(format_row(f"{design.title} ({truth})" if is_first else "", model, judged))
    return "\n".join(lines)


def main(names: list[str]) -> None:
    """Run designs, keep what others gave before, and renew the table in the README."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in names or DESIGNS:
        results[name] = run_design(name)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(write_table({name: results[name]}), flush=True)
    text = README.read_text(encoding="utf-8")
    before, after = text.split("<!-- skewed means -->\n")[0], text.split("<!-- end of skewed means -->")[1]
    README.write_text(
        f"{before}<!-- skewed means -->\n\n{write_table(results)}\n\n<!-- end of skewed means -->{after}",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
