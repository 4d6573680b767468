"""The report in a real browser: no errors, no requests, no dialogs, no sideways scrolling of the page."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from example_plans import make_plan
from example_posterior import example_fit, example_plan
from hostile_text import HOSTILE

from bayes_hte.analysis.plans.analysis import Analysis
from bayes_hte.analysis.plans.by_question import ByQuestion, RegisteredQuestions
from bayes_hte.analysis.result import Fit
from bayes_hte.spec.questions.registration import RegistrationStatus

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (1280, 768, 390, 320)


def executable() -> str | None:
    """The browser to use: BAYES_HTE_CHROMIUM, or the first of the usual names."""
    given = os.environ.get("BAYES_HTE_CHROMIUM")
    return given or next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    path = executable()
    if path is None:
        pytest.skip("no chromium is installed: install one or set BAYES_HTE_CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


def fits() -> dict[str, Fit | Analysis]:
    hostile = {"arms": (HOSTILE[0], HOSTILE[1], HOSTILE[4]), "outcome": HOSTILE[2], "ok": False}
    mixed = [(name, other) for name, other in zip(HOSTILE, reversed(HOSTILE), strict=True)]
    rope = example_plan(title="T" * 200, question="Q" * 500, source="S" * 300, report={"unit": "U" * 60, "rope": 0.01})
    return {
        "plain": example_fit(6, plan=example_plan()),
        "hostile": example_fit(mixed, dimensions=("<b>device", "W" * 90), source=HOSTILE[4], **hostile),
        "long words": example_fit(4, family="mean", dimensions=("device", "customer"), plan=rope, one_armed=(3,)),
        "sixty": example_fit(60, arms=("control", "email", "push"), dimensions=("device", "customer")),
        "estimates": example_fit(8, family="estimate", known_n=False),
        "several": several_fits(),
    }


def several_fits() -> Analysis:
    """Two metrics by one breakdown with hostile names: one fit, and one that failed."""
    names, dimensions = (HOSTILE[0], HOSTILE[4]), ("device",)
    plan = make_plan(
        title=HOSTILE[1], breakdowns=[dimensions], decision={},
        metrics=[{"name": name, "outcome": name, "model": "conversion", "matters": 0.01} for name in names],
    )  # fmt: skip
    keys = [(name, dimensions) for name in names]
    failed = {keys[1]: HOSTILE[2]}
    fit = example_fit(list(HOSTILE[:5]), dimensions=dimensions, plan=example_plan(decision={"matters": 0.01}))
    registered = RegisteredQuestions(dict.fromkeys(keys, RegistrationStatus(True)))
    return Analysis(plan, ByQuestion({keys[0]: fit}, failed), ByQuestion(failed), registered)


@pytest.fixture(scope="module", params=["plain", "hostile", "long words", "sixty", "estimates", "several"])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fits()[request.param].report(tmp_path_factory.mktemp("report") / "report.html")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_opens_quietly_and_fits_its_window(
    browser: "playwright.Browser", page_file: Path, width: int
) -> None:
    trouble, asked = _opened(browser, page_file, width)
    assert trouble == []
    assert asked == [page_file.as_uri()]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_forest_plot_is_a_table_for_screen_readers_at_every_width(
    browser: "playwright.Browser", tmp_path: Path, width: int
) -> None:
    """CSS that turns rows into blocks may take the roles of a table away; here they stay."""
    file = example_fit(6, dimensions=("device", "customer")).report(tmp_path / "report.html")
    with browser.new_context(viewport={"width": width, "height": 844}) as context:
        page = context.new_page()
        page.goto(file.as_uri())
        plot = page.get_by_role("table", name="Forest plot of the effect of email")
        # Three devices with two customers each, and the average; each with a name that heads its row.
        assert plot.get_by_role("rowheader").count() == 3 + 6 + 1
        assert plot.get_by_role("rowheader", name="returning").count() == 3
        assert plot.get_by_role("columnheader", name="Effect (95 % interval)").is_visible()


def test_a_page_that_misbehaves_is_caught(browser: "playwright.Browser", tmp_path: Path) -> None:
    """The test above can fail: a script, a request and a page that is too wide are all noticed."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><img src=missing.png><div style='width:3000px'>x</div>"
        "<script>alert(1); console.error('e'); throw new Error('t')</script>",
        encoding="utf-8",
    )
    trouble, asked = _opened(browser, bad, 390)
    for kind in ("dialog", "console", "page error", "too wide"):
        assert any(text.startswith(kind) for text in trouble), kind
    assert len(asked) == 2


def _opened(browser: "playwright.Browser", file: Path, width: int) -> tuple[list[str], list[str]]:
    """What went wrong while the page was opened and every part of it unfolded, and what was requested."""
    trouble: list[str] = []
    asked: list[str] = []

    def dismissed(dialog: "playwright.Dialog") -> None:
        trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    with browser.new_context(viewport={"width": width, "height": 844}) as context:
        page = context.new_page()
        page.on("console", lambda message: trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"page error: {error}"))
        page.on("dialog", dismissed)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri(), wait_until="networkidle")
        for summary in page.locator("summary").all():
            summary.click()
        needed = page.evaluate("document.documentElement.scrollWidth")
        if needed > width:
            trouble.append(f"too wide: {needed} of {width} pixels")
    return trouble, asked
