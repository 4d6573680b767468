"""The files and the page of an analysis say of every question what it is, what was found and what failed."""

import html.parser
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from example_plans import GOAL, GUARDRAIL, SPENT, make_rows, write_plan
from hostile_text import HOSTILE

import bayes_hte as hte
from bayes_hte.analysis.plans.write_analysis import build_summary, list_notes, name_fit_files, write_analysis

RULE = {"ship": [{"above": 0.0, "p": 0.9}]}


class Elements(html.parser.HTMLParser):
    """Collects tags, ids and what text a browser would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def run(folder: Path, **changes: object) -> hte.Analysis:
    result = hte.run(write_plan(folder, **changes))
    assert isinstance(result, hte.Analysis)
    return result


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> hte.Analysis:
    metrics = [GOAL, GUARDRAIL, {**SPENT, "model": "conversion"}]
    return run(tmp_path_factory.mktemp("a"), metrics=metrics, breakdowns=[["device"]], decision=RULE)


@pytest.fixture(scope="module")
def folder(analysis: hte.Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    write_analysis(analysis, out)
    return out


def test_the_page_has_every_question_once_and_what_failed(folder: Path) -> None:
    page = Elements((folder / "report.html").read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert page.tags.count("main") == page.tags.count("h1") == page.tags.count("html") == 1
    assert not {"script", "link", "iframe", "form"} & set(page.tags)
    for phrase in ("bought by device", "returns by device", "spent by device", "Could not be fitted:", "guardrail"):
        assert phrase in re.sub(r"\s+", " ", page.text)
    assert "0 of 3 questions were registered before the test." in page.text
    # What one metric alone decides is no answer: decisions are of all metrics together, and stand once.
    assert page.text.count("What to do") == 1


def test_the_table_has_the_decision_of_all_metrics_in_each_row(analysis: hte.Analysis, folder: Path) -> None:
    effects = pd.read_csv(folder / "effects.csv")
    assert list(effects.columns[:4]) == ["metric", "breakdown", "segment", "arm"]
    assert {"scale", "units", "reading", "registered", "reliable", "problem", "decision", "why"} <= set(effects.columns)
    decided = analysis.decide().drop_duplicates("segment").set_index("segment")["decision"]
    fitted = effects[effects["metric"] != "spent"]
    assert len(fitted) == 4
    assert all(row.decision == decided[row.segment] for row in fitted.itertuples())
    assert effects[effects["metric"] == "spent"]["problem"].str.len().gt(0).all()


def test_one_summary_holds_all_fits(analysis: hte.Analysis, folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["format"] == "bayes_hte analysis 1"
    assert (summary["reliable"], summary["registered"]) == (False, False)
    by_metric = {entry["metric"]: entry for entry in summary["questions"]}
    assert by_metric["bought"]["breakdown"] == ["device"]
    assert by_metric["bought"]["fit"]["segments"][0]["effect"] == pytest.approx(
        analysis.fits["bought", "device"].table()["effect"][0]
    )
    assert by_metric["returns"]["role"] == "guardrail"
    assert by_metric["spent"]["failed"]
    assert not by_metric["bought"]["registration"]["registered"]
    assert (folder / by_metric["bought"]["file"]).is_file()
    assert {row["decision"] for row in summary["decisions"]} <= {"ship", "stop", "equivalent", "undecided"}
    # What one metric says alone is no decision, there and in the table.
    assert by_metric["bought"]["fit"]["decisions"] is None
    assert "decision" not in analysis.table().columns
    assert build_summary(analysis)["title"] == "New checkout"


def test_a_second_run_leaves_nothing_of_the_first(analysis: hte.Analysis, tmp_path: Path) -> None:
    write_analysis(analysis, tmp_path)
    (tmp_path / "fit.nc").write_text("of a run with one question")
    (tmp_path / "fits" / "notes.txt").write_text("somebody's own")
    (tmp_path / "fits" / "09-of-an-earlier-run.nc").write_text("")
    write_analysis(analysis, tmp_path, report=False)
    assert {file.name for file in tmp_path.iterdir()} == {"effects.csv", "summary.json", "fits"}
    assert {file.name for file in (tmp_path / "fits").iterdir()} == {
        *name_fit_files(analysis).values(), "analysis.json", "notes.txt",
    }  # fmt: skip


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    rows = make_rows(800).replace({"device": {"mobile": HOSTILE[0], "desktop": HOSTILE[4]}})
    metrics = [{**GOAL, "name": HOSTILE[1]}, {**GUARDRAIL, "name": HOSTILE[2]}]
    result = hte.run(
        write_plan(tmp_path, rows, title=HOSTILE[3], metrics=metrics, breakdowns=[["device"]], decision=RULE)
    )
    assert isinstance(result, hte.Analysis)
    written = write_analysis(result, tmp_path / "out")
    assert all(path.resolve().is_relative_to(tmp_path.resolve()) for path in written)
    page = Elements((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "img", "iframe"} & set(page.tags)
    assert not any(
        line.startswith(("=", "+", "@")) for line in (tmp_path / "out" / "effects.csv").read_text().split("\n")
    )
    again = hte.load(tmp_path / "out" / "fits")
    assert list(again.fits) == list(result.fits)


def test_what_was_registered_and_dropped_is_told(tmp_path: Path) -> None:
    hte.register(write_plan(tmp_path, metrics=[GOAL, GUARDRAIL], breakdowns=[["device"], ["country"]]))
    notes = list_notes(run(tmp_path, metrics=[GOAL], breakdowns=[["device"], ["customer"]]))
    assert notes[0] == "1 of 2 questions were registered before the test."
    assert "The others are exploratory, because: the lock has no breakdown 'customer'" in notes[1]
    assert notes[2].startswith("Changed in the plan since it was registered: breakdowns: ")
    assert notes[3].startswith("Registered, and not asked any more: bought by country, returns by device, returns by")


def test_where_nothing_was_registered_nothing_is_called_the_others(tmp_path: Path) -> None:
    notes = list_notes(run(tmp_path, metrics=[GOAL], breakdowns=[["device"], ["customer"]]))
    assert notes[0] == "0 of 2 questions were registered before the test."
    assert notes[1].startswith("All are exploratory, because: no lock")


def test_the_answers_for_several_arms_are_paragraphs_of_their_own(tmp_path: Path) -> None:
    rows = make_rows()
    rows.loc[::3, "arm"] = "bold"
    result = hte.run(write_plan(tmp_path, rows, metrics=[GOAL], breakdowns=[["device"]]))
    assert isinstance(result, hte.Analysis)
    page = result.report(tmp_path / "report.html").read_text(encoding="utf-8")
    for arm in ("bold", "new"):
        assert f"<p><b>{arm} against old:</b> On average" in re.sub(r"</?bdi>|[\u2066-\u2069]", "", page)
