"""The report: what it promises to say, to leave out, and to survive."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from example_posterior import example_fit, example_plan
from hostile_text import HOSTILE

from bayes_hte._support.phrases import format_percent_probability
from bayes_hte.analysis.result import Fit
from bayes_hte.criticism import arviz_groups, prior_sensitivity
from bayes_hte.estimands.tables import EffectQuestion, tabulate_segments
from bayes_hte.model.families import FAMILIES
from bayes_hte.report import prior_notes, render, segment_table
from bayes_hte.report.arm_results import collect_arm_results
from bayes_hte.report.notation import isolate_name, join_names
from bayes_hte.spec import Model

VOID = {"meta", "link", "img", "br", "hr", "input"}


def report(fit: Fit, **changes: object) -> str:
    question = EffectQuestion(**{**_asdict(fit.question()), **changes})  # type: ignore[arg-type]
    return render(fit.posterior, question, fit.diagnosis, fit.plan)


def _asdict(question: EffectQuestion) -> dict[str, object]:
    return {key: getattr(question, key) for key in ("scale", "ci_prob", "rope", "higher_is_better")}


class Page(HTMLParser):
    """Tags with their attributes, the text of the page, and the text of every element with a class."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.data: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.data.append((self.open[-1] if self.open else "", " ".join(data.split())))

    @property
    def text(self) -> str:
        return " ".join(data for tag, data in self.data if tag != "style").replace("\u00a0", " ")

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attrs for found, attrs in self.tags if found == tag]


@pytest.fixture(scope="module")
def hostile() -> str:
    fit = example_fit(
        HOSTILE, arms=(HOSTILE[0], HOSTILE[1]), outcome=HOSTILE[2], dimensions=("<b>device",), source=HOSTILE[0]
    )
    return report(fit)


def test_names_from_data_are_escaped_everywhere(hostile: str) -> None:
    page = Page(hostile)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "b", "iframe", "object", "embed", "link", "base", "form"}
    assert not [attrs for _, attrs in page.tags if any(key.startswith("on") for key in attrs)]
    assert not page.open
    assert hostile.count("<style>") == 1
    assert hostile.count("</style>") == 1
    assert "<script>alert(1)</script> against" not in hostile
    assert HOSTILE[0] in page.text
    assert HOSTILE[1] in page.text
    assert HOSTILE[5] in page.text


def test_marks_of_direction_do_not_reach_the_page(hostile: str) -> None:
    assert "\u202e" not in hostile
    assert "\u202c" not in hostile
    assert isolate_name("مرحبا").startswith("\u2068")
    assert isolate_name("mobile") == "mobile"


def test_a_name_that_looks_like_a_reference_is_only_a_name() -> None:
    fit = example_fit(["url(#x", "href=#y"], arms=("control", "url(#a) #b"))
    assert "url(#a) #b" in Page(report(fit)).text


def test_hostile_words_of_a_plan_are_escaped() -> None:
    plan = example_plan(
        title=HOSTILE[2], question=HOSTILE[1], source=HOSTILE[0], report={"unit": '"><script>alert(3)</script>'}
    )
    page = Page(report(example_fit(3, family="mean", plan=plan)))
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert '"><script>alert(3)</script>' in page.text


def test_sixty_segments_and_two_arms_stay_under_half_a_megabyte() -> None:
    fit = example_fit(60, arms=("control", "email", "push"), dimensions=("device", "customer"))
    html = report(fit, rope=0.01)
    assert len(html.encode()) < 500_000
    segments = html[html.index('id="segments"') : html.index('id="pooling"')]
    for table in ("forest", "cards"):  # the forest plot, and the table of all numbers
        of_arms = re.findall(rf'<table class="{table}[ "].*?</table>', segments, re.S)
        assert [len(re.findall(r"<tr role=.row.>\s*<th scope=.row. [^>]*><bdi>", arm)) for arm in of_arms] == [60, 60]


def test_a_hundred_segments_stay_under_four_hundred_kilobytes() -> None:
    assert len(report(example_fit(100, dimensions=("device", "customer"))).encode()) < 400_000


def test_the_page_asks_for_nothing_and_forbids_everything(hostile: str) -> None:
    page = Page(hostile)
    policy = next(attrs["content"] for attrs in page.named("meta") if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "<script" not in hostile
    assert "http:" not in hostile
    assert "https:" not in hostile
    assert "@import" not in hostile
    references = [attrs[key] for _, attrs in page.tags for key in ("href", "src", "srcset", "action") if key in attrs]
    assert all(reference.startswith("#") for reference in references)
    assert all(found == "#" for found in re.findall(r"url\(['\"]?(.)", hostile))


def test_every_reference_inside_a_figure_has_its_target(hostile: str) -> None:
    ids = re.findall(r' id="([^"]+)"', hostile)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", hostile)) | set(re.findall(r'href="#([^"]+)"', hostile))
    assert wanted
    assert wanted <= set(ids)


def test_a_failed_diagnosis_is_the_first_line_and_marks_every_table() -> None:
    html = report(example_fit(4, arms=("control", "a", "b"), ok=False))
    body = Page(html[html.index("<body>") : html.index("</html>")])
    assert body.tags[1] == ("div", {"class": "banner", "role": "alert"})
    assert body.text.startswith("Do not use these results. The fit did not pass its own checks: The chains disagree")
    captions = re.findall(r"<caption>(.*?)</caption>", html, re.S)
    assert len(captions) == 5  # segments and differences of two arms, and sensitivities
    assert all("Not reliable." in caption for caption in captions)
    assert "<title>NOT RELIABLE: " in html


def test_a_passed_diagnosis_shows_no_banner() -> None:
    html = report(example_fit(4))
    assert 'class="banner"' not in html
    assert "Not reliable" not in html
    assert "passed their checks" in html


def test_the_two_sentences_say_the_numbers_of_the_tables() -> None:
    effects = [-0.8, 1.0, 0.8, 0.5, 0.0, 0.1]
    fit = example_fit(6, effect=effects, units=20_000, outcome="visit")
    text = Page(report(fit)).text
    ate, table = fit.ate().iloc[0], fit.table()
    assert (
        f"On average over {fit.cells['n'].values.sum():,} units, "
        f"email raised “visit” by {100 * ate['effect']:.1f} percentage points "
        f"(95 % interval {100 * ate['ci_low']:.1f} to {100 * ate['ci_high']:.1f}); it is almost certain to help"
    ) in text
    labels = fit.cells["segment"].values
    helps, harms = (table["p_positive"] > 0.975), (table["p_negative"] > 0.975)
    unknown = labels[(~helps & ~harms).to_numpy()]
    assert harms.sum() == 1
    assert len(unknown) > 0
    assert (
        f"It clearly helps (P > 97.5 %) in {helps.sum()} of 6 segments: {join_names(list(labels[helps.to_numpy()]))}; "
        f"it clearly harms in 1: {labels[harms.to_numpy()][0]}; "
        f"in {len(unknown)} the sign is not known: {join_names(list(unknown))}."
    ).replace("\u00a0", " ") in text


def test_lower_is_better_turns_the_words_round_but_not_the_numbers() -> None:
    fit = example_fit(4, effect=0.8, units=20_000, outcome="churn")
    text = Page(report(fit, higher_is_better=False)).text
    assert "raised “churn” by" in text
    assert "it is almost certain to harm" in text
    assert "It clearly helps (P > 97.5 %) in none of the 4 segments; it clearly harms in 4" in text
    assert "lower is better" in text


def test_the_expected_share_of_wrong_signs_is_the_mean_over_the_segments_called() -> None:
    fit = example_fit(8, effect=np.linspace(-0.4, 0.6, 8).tolist(), units=1500)
    table = fit.table()
    lfsr = table[["p_positive", "p_negative"]].min(axis=1)
    expected = lfsr[lfsr < 0.025].mean()
    assert 0 < (lfsr < 0.025).sum() < 8
    (case,) = collect_arm_results(fit.posterior, fit.question(), None)
    called = [segment for segment in case.readings if segment.is_called]
    assert len(called) == (lfsr < 0.025).sum()
    assert (
        f"{len(called)} signs are called, of which {format_percent_probability(expected)}".replace("\u00a0", " ")
        in Page(report(fit)).text
    )


def test_the_plan_says_how_probable_a_sign_must_be_to_be_called() -> None:
    fit = example_fit(8, effect=0.3, units=4000, plan=example_plan(report={"call_prob": 0.999}))
    text = Page(report(fit)).text
    assert (fit.table()["p_positive"] > 0.999).sum() < (fit.table()["p_positive"] > 0.95).sum()
    assert f"It clearly helps (P > 99.9 %) in {(fit.table()['p_positive'] > 0.999).sum()} of 8 segments" in text
    assert "“Helps” and “harms” need P > 99.9 %" in text
    assert "95 %)" not in text.split("Can these numbers")[0].replace("(95 % interval", "")


def test_a_segment_without_an_arm_never_wins() -> None:
    fit = example_fit(4, effect=0.6, units=5000, one_armed=(3,))
    assert fit.table()["p_positive"].iloc[3] > 0.95
    text = Page(report(fit)).text
    assert "in 3 of 4 segments" in text
    assert "in 1 nothing could be tested, because an arm is missing: device 4" in text
    assert "not tested an arm is missing" in text


def test_mostly_borrowed_segments_are_named() -> None:
    fit = example_fit(6, effect=0.4, units=2000)
    table = fit.table()
    borrowed = fit.cells["segment"].values[(table["pooling"] > 0.8).to_numpy()]
    assert 0 < len(borrowed) < 6
    assert f"In {join_names(list(borrowed))} the estimate is mostly borrowed" in Page(report(fit)).text


@pytest.mark.parametrize(
    ("plan", "status"),
    [
        (None, "Exploratory: there is no plan file that says what was asked before the test"),
        (example_plan(), "Exploratory: no lock shows that this was asked before the data were seen"),
        (
            example_plan(exploratory=True),
            "Exploratory: the plan itself says that the segments were chosen after the data",
        ),
    ],
)
def test_the_status_of_the_segments_is_always_said(plan: object, status: str) -> None:
    assert status in Page(report(example_fit(3, plan=plan))).text  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["partial", "none", "complete"])
@pytest.mark.parametrize("family", ["binomial", "normal", "mean", "estimate"])
def test_every_family_and_pooling_has_a_report(family: str, pooling: str) -> None:
    fit = example_fit(4, family=family, pooling=pooling, known_n=False)  # type: ignore[arg-type]
    page = Page(report(fit))
    assert "Do not use" not in page.text
    assert " nan" not in page.text.lower()
    assert "None" not in page.text
    assert ("percentage points" in page.text) == (family == "binomial")


@pytest.mark.parametrize("scale", ["absolute", "relative", "link"])
def test_every_scale_has_a_report(scale: str) -> None:
    words = {"absolute": "percentage points", "relative": "% relative to the control", "link": "in log-odds"}
    text = Page(report(example_fit(4), scale=scale)).text
    assert words[scale] in text.split("Can these numbers")[0]


def test_one_segment_has_a_report() -> None:
    assert "There is one segment and nothing to compare it with" in Page(report(example_fit(1))).text


def test_the_smallest_effect_that_matters_adds_its_columns() -> None:
    heads = {"P(too small)", "P(benefit)", "P(harm)"}
    fit = example_fit(3)
    assert heads <= {attrs.get("data-head", "") for attrs in Page(report(fit, rope=0.01)).named("td")}
    assert not heads & {attrs.get("data-head", "") for attrs in Page(report(fit)).named("td")}


def test_headings_are_in_order_and_figures_have_words() -> None:
    page = Page(report(example_fit(3, arms=("control", "a", "b"))))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    figures = [attrs for attrs in page.named("svg") if attrs.get("role") == "img"]
    figures += [attrs for attrs in page.named("table") if attrs["class"] == "forest"]
    assert len(figures) == 6  # of each arm: the forest, and the shrinkage plot for desktop and for a phone
    assert all(len(attrs["aria-label"]) > 40 for attrs in figures)
    assert page.named("html")[0]["lang"] == "en"
    assert all("scope" in attrs for attrs in page.named("th"))


def test_the_reader_can_get_the_same_numbers_again() -> None:
    fit = example_fit(3, plan=example_plan(), seed=7)
    text = Page(report(fit)).text
    assert "bayes_hte.fit(cells, model, draws=" in text  # test_cli sees the command, where one was given
    assert fit.posterior.attrs["data_sha256"] in text
    assert "Seed 7" in text
    assert "effect[s, a] ~ Normal(effect_mean[a], effect_between[a])" in text


def test_priors_in_control_sds_are_shown_in_the_outcomes_own_units() -> None:
    fit = example_fit(3, family="normal")
    text = Page(report(fit)).text
    assert "Priors are stated in SDs of the control’s outcome" in text
    resolved = Model.model_validate_json(fit.posterior.attrs["resolved_model"])
    assert fit.model.effect.mean.sigma == 1.0
    assert f"effect_mean[a] ~ Normal(mu=0, sigma={resolved.effect.mean.sigma:.4g})" in text


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.5, 0.9999999, 1.0])
def test_a_probability_is_never_zero_or_one_hundred_percent(value: float) -> None:
    assert format_percent_probability(value) not in {"0.0\u00a0%", "100.0\u00a0%"}


def test_the_table_of_the_report_is_the_table_of_the_fit() -> None:
    fit = example_fit(5, effect=[0.5, 0.3, 0.1, -0.1, -0.3])
    html = report(fit)
    shown = [float(text.replace("−", "-")) for text in re.findall(r'data-head="Effect[^>]*>([^<]+)<', html)]
    wanted: pd.Series = 100 * tabulate_segments(fit.posterior, fit.question())["effect"]
    assert shown == pytest.approx(wanted.to_list(), abs=0.051)  # one decimal is shown


def test_rendering_needs_no_pymc() -> None:
    code = "import sys, bayes_hte.report; sys.exit('pymc' in sys.modules or 'nutpie' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def section(html: str, start: str, end: str) -> str:
    """The words between two headings."""
    first, last = (html.index(f'<section aria-labelledby="{name}">') for name in (start, end))
    return Page(html[first:last]).text


def test_levels_of_several_dimensions_have_a_table_and_of_one_have_none() -> None:
    fit = example_fit(6, dimensions=("device", "customer"))
    html = report(fit)
    shown = section(html, "levels", "assumed")
    for dimension in ("device", "customer"):
        for row in fit.marginal(dimension).to_dict("records"):
            effect, low, high = (f"{100 * row[key]:+.1f}".replace("-", "−") for key in ("effect", "ci_low", "ci_high"))
            assert f"{dimension} {row['level']} {effect} {low} to {high}" in shown
    assert 'id="levels"' not in report(example_fit(6))


def test_a_qualitative_interaction_and_its_test_are_shown() -> None:
    fit = example_fit(4, effect=[0.5, -0.5, 0.2, -0.2], units=2000)
    spread = fit.heterogeneity().set_index("quantity")["value"]
    shown = section(report(fit, rope=0.01), "differences", "assumed")
    assert f"Gail–Simon p-value {max(spread['gail_simon_p'], 0):.3f}".replace("0.000", "< 0.001") in shown
    assert "P(some gain, some lose)" in shown
    assert "by more than 1 percentage point" in shown


def test_the_report_says_whether_the_priors_matter() -> None:
    fit = example_fit(4)
    found = fit.sensitivity()
    assert (found["prior"] < 0.05).all()
    said = section(report(fit), "priors", "data")
    assert f"The priors hardly matter: of {len(found)} numbers examined none is noticeably sensitive" in said
    assert f"effect_mean[email] {found.loc[0, 'prior']:.2f} {found.loc[0, 'likelihood']:.2f}" in said


def test_numbers_that_hang_on_the_priors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = example_fit(HOSTILE[:3], units=300)
    found = fit.sensitivity()
    edge = found["prior"].sort_values().iloc[-2]
    for module in (prior_sensitivity, prior_notes):
        monkeypatch.setattr(module, "MIN_NOTICEABLE_SENSITIVITY", edge)
    html = report(fit)
    said = section(html, "priors", "data")
    assert f"The priors matter for 2 of {len(found)} numbers examined" in said
    assert "<script>alert" not in html


def test_a_fit_that_is_too_large_to_examine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arviz_groups, "MAX_VALUES_PER_GROUP", 1.0)
    assert "Whether the priors matter was not examined" in Page(report(example_fit(2))).text


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("chance_between_sd", "Between-segment SD (τ), chance of a positive outcome"),
        ("between_sd[<b>]", "Between-segment SD (τ), <b>"),
        ("p_tau_matters", "P(τ matters)"),
    ],
)
def test_quantities_have_names_for_people(name: str, title: str) -> None:
    assert segment_table._write_quantity_title(name) == title


def test_a_correlation_and_a_slope_are_written_in_their_own_units() -> None:
    (case,) = collect_arm_results(example_fit(3).tree, EffectQuestion(), None)
    row = {"value": -0.257, "ci_low": -0.8, "ci_high": 0.4, "meaning": "a meaning, link scale"}
    quantities = replace(case, heterogeneity={"correlation": row, "slope[size]": row})
    first, second = segment_table.build_quantity_rows(quantities, FAMILIES["binomial"], "")
    assert (first.value_text, first.interval_text) == ("−0.26", "−0.80 to +0.40")
    assert second.quantity_title == "Slope, size"
    assert second.value_text.endswith("in log-odds")
    assert second.meaning == "a meaning, log-odds"


def test_what_makes_the_arms_incomparable_stands_before_the_answer() -> None:
    page = Page(report(example_fit(one_armed=(0,)))).text
    warned = page.index("Before you read on: the arms may not be comparable.")
    assert (
        warned
        < page.index("The levels of 'device' are distributed differently over the arms (p ")
        < page.index("On average")
    )
    assert page.index("What is weak about them") < page.index("1 segment lacks an arm: device 1 (no email); kept")
    assert page.count("are distributed differently over the arms") == 1


def test_comparable_arms_need_no_word_before_the_answer() -> None:
    html = report(example_fit())
    assert "the arms may not be comparable" not in html
    assert 'class="unfair"' not in html
    assert "The checks of the cell table found nothing to warn about." in html


def test_hostile_names_in_warnings_are_text() -> None:
    fit = example_fit(HOSTILE, dimensions=("<i>device",), one_armed=(0, 1, 2))
    html = report(fit)
    page = Page(html)
    assert "the arms may not be comparable" in page.text
    assert "<i>device" in page.text
    assert not {"script", "i", "img"} & {tag for tag, _ in page.tags}
    assert "\u202e" not in html


def test_the_page_prints_what_was_given_and_the_model_as_a_file_that_can_be_read() -> None:
    fit = example_fit(3, plan=example_plan())
    # The call that made it is not known: the page falls back on one in Python.
    assert "bayes_hte.fit(cells, model, draws=" in Page(report(fit)).text
    tree = fit.tree
    tree.attrs["command"] = "bayes-hte run 'my plans/shop.toml' --seed 3"
    text = Page(report(Fit(tree))).text
    assert "bayes-hte run 'my plans/shop.toml' --seed 3" in text
    assert 'family = "binomial"' in text
    assert '{ dist = "Normal"' in text
