"""How often every check speaks: of sound data (false alarms), and of plainly unsound data (power).

    python benchmarks/alarms.py            # all, some minutes on two cores; writes results/alarms.json and the table

A scenario makes cells, and a model where they are fitted; a check is a pattern of the sentences that are said. To
register a check add it to CHECKS with the scenario in which it must speak. Every scenario is asked about every check,
so that it shows, too, which others speak with it.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import bayes_hte as hte

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "alarms.json"
README = HERE / "README.md"
FIT_DRAWS = 400
KEPT_REPETITIONS = 5
"""Answers of the first data sets are kept one by one: a test makes them again."""

type Rng = np.random.Generator
type Case = tuple[xr.Dataset, hte.Model | None]
ASK = {"arm": "arm", "control": "old", "segments": ["segment"]}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way to simulate data; `is_sound` where every sentence is a false alarm."""

    title: str
    make_case: Callable[[Rng], Case]
    repetitions: int
    is_sound: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """A check by the pattern of what it says, and the scenario in which it must speak."""

    title: str
    pattern: str
    scenario: str


def make_counts(
    rng: Rng, *, slope: float = 0.0, outlier: float = 0.0, between: float = 0.15, lost: float = 0.0
) -> xr.Dataset:
    """Make counts of 20 segments of 200 to 20,000 units an arm; effects change by `slope` per factor e of size."""
    size = np.exp(rng.uniform(np.log(200), np.log(20_000), 20))
    baseline, effect = rng.normal(-2, 0.3, 20), rng.normal(0.1, between, 20) + slope * (np.log(size) - np.log(2000))
    effect[0] += outlier
    rows = []
    for index in range(20):
        for arm, shift, kept in (("old", 0.0, 1.0), ("new", effect[index], 1 - lost)):
            n = rng.poisson(size[index] * kept)
            rows.append((f"s{index}", arm, n, rng.binomial(n, 1 / (1 + np.exp(-baseline[index] - shift)))))
    table = pd.DataFrame(rows, columns=["segment", "arm", "n", "y"])
    return hte.cells.from_summary(table, n="n", events="y", **ASK)


def make_rows(rng: Rng, **unsound: float) -> pd.DataFrame:
    """Make 4,000 units in eight segments with a covariate from before, and 2 % of the outcomes missing."""
    arm = np.where(rng.random(4000) < 0.5, "new", "old")
    is_new = arm == "new"
    before = rng.normal(10 + unsound.get("imbalance", 0.0) * is_new, 3)
    segment = rng.integers(0, 8, 4000)
    moved = is_new & (rng.random(4000) < unsound.get("moved", 0.0))
    spent = rng.normal(20, 5, 4000)
    spent[rng.random(4000) < 0.02 + unsound.get("attrition", 0.0) * is_new] = np.nan
    spent[0] = 20.0 + unsound.get("extreme", 0.0)
    names = np.array([f"s{index}" for index in np.where(moved, 0, segment)])
    return pd.DataFrame({"segment": names, "arm": arm, "before": before, "spent": spent})


def reduce_rows(rows: pd.DataFrame) -> xr.Dataset:
    """Reduce the rows to cells."""
    cells = hte.cells.from_rows(rows, outcome="spent", balance="before", drop_missing=True, **ASK)
    return hte.cells.with_shares(cells, {"old": 0.5, "new": 0.5})


def publish(rng: Rng, factor: float) -> xr.Dataset:
    """Publish estimates of 8 segments that the shipped priors expect, in units that are `factor` times smaller."""
    se = rng.uniform(0.1, 0.4, 8)
    effects = rng.normal(rng.normal(0.3, 0.2), 0.2, 8)
    table = pd.DataFrame(
        {"segment": [f"s{i}" for i in range(8)], "y": factor * rng.normal(effects, se), "se": factor * se}
    )
    return hte.cells.from_estimates(table, segments=["segment"], estimate="y", se="se")


def draw_from_published_prior(rng: Rng) -> xr.Dataset:
    """Draw mean, between-segment SD and estimates from the priors of published-estimates."""
    se = rng.uniform(0.05, 0.6, 8)
    effects = rng.normal(rng.normal(0, 1), abs(rng.normal(0, 0.5)), 8)
    table = pd.DataFrame({"segment": [f"s{i}" for i in range(8)], "y": rng.normal(effects, se), "se": se})
    return hte.cells.from_estimates(table, segments=["segment"], estimate="y", se="se")


def make_visits(rng: Rng, inactive: float) -> xr.Dataset:
    """Make counts of visits of 3,000 units, of whom a part is never active."""
    arm = np.where(rng.random(3000) < 0.5, "new", "old")
    visits = rng.negative_binomial(1.5, 1.5 / 5.5, 3000) if inactive == 0 else rng.poisson(8, 3000)
    visits = np.where(rng.random(3000) < inactive, 0, visits)
    rows = pd.DataFrame({"segment": rng.integers(0, 6, 3000), "arm": arm, "visits": visits})
    return hte.cells.from_rows(rows, outcome="visits", metric="histogram", **ASK)


def pool_completely() -> hte.Model:
    """Build the conversion model with one common effect."""
    content = hte.read_model("conversion").model_dump(exclude_none=True)
    content["effect"].pop("between")
    return hte.Model.model_validate(content | {"pooling": "complete"})


def respell(rows: pd.DataFrame) -> pd.DataFrame:
    """Write a tenth of the labels in capitals."""
    is_capital = np.arange(len(rows)) % 10 == 0
    return rows.assign(segment=np.where(is_capital, rows["segment"].str.upper(), rows["segment"]))


def add_total(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Repeat all rows under another level."""
    return pd.concat([rows, rows.assign(segment=name)], ignore_index=True)


def make_days(rng: Rng) -> xr.Dataset:
    """Make rows that are the sums of days."""
    rows = [(f"s{s}", arm, rng.poisson(300)) for s in range(6) for arm in ("old", "new") for _ in range(14)]
    return hte.cells.from_rows(pd.DataFrame(rows, columns=["segment", "arm", "y"]), outcome="y", **ASK)


CONVERSION, PUBLISHED, COUNTS = map(hte.read_model, ("conversion", "published-estimates", "counts"))
COMPLETE = pool_completely()
SCENARIOS = {
    "rows": Scenario("sound rows", lambda rng: (reduce_rows(make_rows(rng)), None), 200, is_sound=True),
    "counts": Scenario("sound counts, 20 segments", lambda rng: (make_counts(rng), CONVERSION), 100, is_sound=True),
    "common": Scenario(
        "one common effect, complete pooling", lambda rng: (make_counts(rng, between=0.0), COMPLETE), 40, is_sound=True
    ),
    "published": Scenario(
        "estimates drawn from the priors", lambda rng: (draw_from_published_prior(rng), PUBLISHED), 200, is_sound=True
    ),
    "visits": Scenario("negative binomial visits", lambda rng: (make_visits(rng, 0.0), COUNTS), 20, is_sound=True),
    "imbalance": Scenario("covariate .2 SD higher", lambda rng: (reduce_rows(make_rows(rng, imbalance=0.6)), None), 60),
    "attrition": Scenario("5 % more missing", lambda rng: (reduce_rows(make_rows(rng, attrition=0.05)), None), 60),
    "moved": Scenario("10 % of an arm change segment", lambda rng: (reduce_rows(make_rows(rng, moved=0.1)), None), 60),
    "extreme": Scenario("a unit 60 SD away", lambda rng: (reduce_rows(make_rows(rng, extreme=300.0)), None), 60),
    "lost": Scenario("3 % of an arm lost", lambda rng: (make_counts(rng, lost=0.03), None), 60),
    "total": Scenario(
        "a total under a plain name", lambda rng: (reduce_rows(add_total(make_rows(rng), "x")), None), 40
    ),
    "named": Scenario(
        "a level called All", lambda rng: (reduce_rows(make_rows(rng).replace({"segment": {"s0": "All"}})), None), 40
    ),
    "spelling": Scenario("levels in two spellings", lambda rng: (reduce_rows(respell(make_rows(rng))), None), 40),
    "days": Scenario("rows are days", lambda rng: (make_days(rng), None), 40),
    "outlier": Scenario("an effect 1 too large", lambda rng: (make_counts(rng, outlier=1.0), CONVERSION), 30),
    "far": Scenario("an effect 1.5 too large", lambda rng: (make_counts(rng, outlier=1.5), CONVERSION), 30),
    "slope": Scenario("effects fall by .1 per factor e", lambda rng: (make_counts(rng, slope=-0.1), CONVERSION), 40),
    "steep": Scenario("effects fall by .2 per factor e", lambda rng: (make_counts(rng, slope=-0.2), CONVERSION), 30),
    "differing": Scenario("effects differ, complete pooling", lambda rng: (make_counts(rng), COMPLETE), 30),
    "percent": Scenario("estimates in per cent", lambda rng: (publish(rng, 100.0), PUBLISHED), 40),
    "tens": Scenario("estimates ten times too large", lambda rng: (publish(rng, 10.0), PUBLISHED), 40),
    "inactive": Scenario("half of the units inactive", lambda rng: (make_visits(rng, 0.5), COUNTS), 15),
}
CHECKS = (
    Check("sample-ratio mismatch", "different numbers of units|sample-ratio mismatch", "lost"),
    Check("levels distributed differently", "distributed differently over the arms", "moved"),
    Check("imbalance before treatment", "already before treatment", "imbalance"),
    Check("missing at different rates", "missing at different rates", "attrition"),
    Check("one unit carries a cell", "one unit that makes up", "extreme"),
    Check("a total, by sums", "has the numbers of all other levels", "total"),
    Check("a total, by name", "named like a total", "named"),
    Check("labels in several spellings", "several spellings", "spelling"),
    Check("rows that are sums", "every cell has exactly", "days"),
    Check("prior and data contradict", "prior and the data contradict", "percent"),
    Check("… or the prior says nearly all", "prior and the data contradict|comes from the prior", "percent"),
    Check("prior and data contradict, less", "prior and the data contradict", "tens"),
    Check("effects go with size", "go together with the size", "slope"),
    Check("effects go with size, steeper", "go together with the size", "steep"),
    Check("furthest segment", "furthest segment under", "outlier"),
    Check("furthest segment, further", "furthest segment under", "far"),
    Check("scatter around a common effect", "scatter of effects", "differing"),
    Check("number of zeros", "units with a count of 0", "inactive"),
    Check("zeros of cells", "squared distances of zeros", "inactive"),
    Check("furthest segment in the control", "furthest segment in the control", ""),
    Check("totals of events", "events in all cells", ""),
)


SOUND_LIKE = {"percent": "published", "tens": "published", "inactive": "visits", "differing": "common"} | dict.fromkeys(
    ("imbalance", "attrition", "moved", "extreme", "total", "named", "spelling", "days"), "rows"
)
"""The sound scenario that an unsound one departs from; counts for the others."""


def list_sentences(case: Case) -> list[str]:
    """List everything that is said of cells, and of their fit where there is a model."""
    cells, model = case
    sentences = list(hte.check(cells))
    if model is not None:
        fit = hte.fit(cells, model, sampler="exact", draws=FIT_DRAWS)
        predictive = fit.predictive_checks()
        marked_checks = predictive.loc[predictive["verdict"] != "as expected", "check"].tolist()
        sentences += [*fit.diagnosis.problems, *fit.diagnosis.notes, *marked_checks]
    return sentences


def run_scenario(name: str, repetitions: int | None = None) -> dict[str, list[bool]]:
    """Simulate a scenario; whether each check spoke, by its title, data set by data set."""
    scenario = SCENARIOS[name]
    spoke: dict[str, list[bool]] = {check.title: [] for check in CHECKS}
    for repetition in range(repetitions or scenario.repetitions):
        rng = np.random.default_rng([list(SCENARIOS).index(name), repetition])
        text = "\n".join(list_sentences(scenario.make_case(rng)))
        for check in CHECKS:
            spoke[check.title].append(re.search(check.pattern, text) is not None)
    return spoke


def format_rate(rate: float, repetitions: int) -> str:
    """Format a rate and its Monte-Carlo standard error, √(p (1 − p) / n), in per cent."""
    error = (rate * (1 - rate) / repetitions) ** 0.5
    return f"{100 * rate:.1f} ± {100 * error:.1f} %" if 0 < rate < 1 else f"{100 * rate:.0f} %, of {repetitions}"


def write_table(results: dict[str, dict[str, object]]) -> str:
    """Write the table of all checks: the worst rate over sound data, and the power."""
    lines = ["| check | false alarms | of sound data | speaks | of unsound data |", "|---|---|---|---|---|"]
    for check in CHECKS:
        sound = {name: scenario for name, scenario in SCENARIOS.items() if scenario.is_sound and name in results}
        if not sound or (check.scenario and check.scenario not in results):
            continue
        # Of checks that never spoke the sound data are named that they were asked of: those like the unsound ones.
        like = SOUND_LIKE.get(check.scenario, "counts")
        worst = max(sound, key=lambda name: (results[name]["rates"][check.title], name == like))  # type: ignore[index]
        rate = format_rate(results[worst]["rates"][check.title], sound[worst].repetitions)  # type: ignore[index]
        power, title = "", ""
        if check.scenario:
            scenario = SCENARIOS[check.scenario]
            power = format_rate(results[check.scenario]["rates"][check.title], scenario.repetitions)  # type: ignore[index]
            title = scenario.title
        lines.append(f"| {check.title} | {rate} | {sound[worst].title} | {power} | {title} |")
    return "\n".join(lines)


def main(names: list[str]) -> None:
    """Run scenarios, keep what others gave before, and renew the table in the README."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in names or SCENARIOS:
        spoke = run_scenario(name)
        results[name] = {
            "repetitions": SCENARIOS[name].repetitions,
            "rates": {title: sum(answers) / len(answers) for title, answers in spoke.items()},
            "first": {title: answers[:KEPT_REPETITIONS] for title, answers in spoke.items()},
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(name, {title: rate for title, rate in results[name]["rates"].items() if rate}, flush=True)
    text = README.read_text(encoding="utf-8")
    before, after = text.split("<!-- alarms -->\n")[0], text.split("<!-- end of alarms -->")[1]
    README.write_text(
        f"{before}<!-- alarms -->\n\n{write_table(results)}\n\n<!-- end of alarms -->{after}", encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
