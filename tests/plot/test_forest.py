"""Forest and shrinkage plots, from tables alone: nothing here fits a model."""

import doctest
import importlib
import math
import pkgutil
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from drawn_text import HOSTILE, SVG, boxes, overlaps, texts
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

import bayes_hte.plot
from bayes_hte._support.phrases import (
    choose_decimals,
    clean_text,
    format_number,
    format_percent_probability,
    shorten_text,
)
from bayes_hte.errors import ArgumentError, DataError, OutputError
from bayes_hte.plot import forest, save, shrinkage, svg
from bayes_hte.plot.drawing.text import measure_width


def row(levels: dict[str, str], effect: float, half: float = 0.02, n: float = 1000, **others: object) -> dict:
    values = {
        **levels,
        "arm": "e-mail",
        "n_control": n,
        "n_treated": n,
        "raw": effect * 1.3,
        "raw_se": half / 1.5,
        "effect": effect,
        "sd": half / 2,
        "ci_low": effect - half,
        "ci_high": effect + half,
        "p_positive": 0.9,
        "p_negative": 0.1,
        "pooling": 0.3,
    }
    return {**values, **others}


def average(arm: str = "e-mail", effect: float = 0.03) -> pd.DataFrame:
    values = row({}, effect, 0.01, 5000, arm=arm, p_positive=0.99999)
    return pd.DataFrame([values]).drop(columns=["raw", "raw_se", "pooling"])


def devices() -> pd.DataFrame:
    return pd.DataFrame(
        [
            row({"device": "tablet"}, -0.01, n=400, p_positive=0.123),
            row({"device": "mobile"}, 0.08, n=6400, p_positive=0.456),
            row({"device": "desktop"}, 0.03, n=1600, p_positive=0.789),
        ]
    )


def sixty() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    return pd.DataFrame(
        [
            row(
                {"region": f"region {s % 5}", "branch": f"branch {s} {'long ' * (s % 9)}"},
                float(rng.normal(0.03, 0.03)),
                half=float(rng.uniform(0.01, 0.08)),
                n=int(rng.integers(20, 100_000)),
                p_positive=float(rng.uniform()),
            )
            for s in range(60)
        ]
    )


def drawn(figure: Figure, gid: str) -> list[PathCollection]:
    return [artist for artist in figure.findobj(PathCollection) if artist.get_gid() == gid]


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_every_segment_appears_with_its_numbers(layout):
    figure = forest(devices(), average(), dimensions=["device"], percent=True, layout=layout)
    said = texts(figure)
    for device, effect, interval, p in [
        ("tablet", "−1.0", "−3.0 to +1.0", "12.3 %"),
        ("mobile", "+8.0", "+6.0 to +10.0", "45.6 %"),
        ("desktop", "+3.0", "+1.0 to +5.0", "78.9 %"),
        ("All (ATE)", "+3.0", "+2.0 to +4.0", "> 99.9 %"),
    ]:
        after = said[said.index(device) :][:7]
        assert effect in after
        assert p in after
        assert any(interval in text for text in after)
    assert "change in visit, percentage points" not in said
    assert "effect, percentage points" in said


def test_units_of_both_arms_are_printed_under_the_arms_names():
    said = texts(forest(devices(), average(), dimensions=["device"], control="no e-mail"))
    assert {"no e-mail", "e-mail"} <= set(said)
    assert said.count("6,400") == 2


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("effect", ["mobile", "desktop", "tablet"]),
        ("name", ["desktop", "mobile", "tablet"]),
        ("given", ["tablet", "mobile", "desktop"]),
    ],
)
def test_rows_come_in_the_order_asked_for(order, expected):
    said = texts(forest(devices(), average(), dimensions=["device"], order=order))
    assert [text for text in said if text in expected] == expected


def test_names_with_numbers_are_ordered_as_a_person_would():
    table = pd.DataFrame([row({"week": f"week {n}"}, 0.01 * n) for n in (10, 9, 1)])
    said = texts(forest(table, average(), dimensions=["week"], order="name"))
    assert [text for text in said if text.startswith("week ")] == ["week 1", "week 9", "week 10"]


def crossed() -> pd.DataFrame:
    """The group with the largest single effect has the smaller weighted mean."""
    return pd.DataFrame(
        [
            row({"plan": "pro", "device": "mobile", "age": "old"}, 0.01, n=9000),
            row({"plan": "pro", "device": "tablet", "age": "old"}, 0.09, n=100),
            row({"plan": "free", "device": "mobile", "age": "old"}, 0.04, n=5000),
        ]
    )


def test_rows_are_grouped_by_the_first_dimension_and_groups_ordered_by_weighted_mean():
    figure = forest(crossed(), average(), dimensions=["plan", "device", "age"])
    wanted = {"pro", "free", "mobile · old", "tablet · old"}
    assert [text for text in texts(figure) if text in wanted] == [
        "free", "mobile · old", "pro", "tablet · old", "mobile · old",
    ]  # fmt: skip
    bold = {artist.get_text() for artist in figure.findobj(Text) if artist.get_fontweight() == "bold"}
    assert {"pro", "free"} <= bold
    assert "mobile · old" not in bold


def test_groups_can_be_ordered_by_name_or_as_given():
    dims = ["plan", "device", "age"]
    for order, expected in {"name": ["free", "pro"], "given": ["pro", "free"]}.items():
        said = texts(forest(crossed(), average(), dimensions=dims, order=order))
        assert [text for text in said if text in expected] == expected


def test_grouping_can_be_chosen_or_switched_off():
    dims = ["plan", "device", "age"]
    assert "pro · mobile" in texts(forest(crossed(), average(), dimensions=dims, group_by="age"))
    assert "pro · mobile · old" in texts(forest(crossed(), average(), dimensions=dims, group_by=None))
    with pytest.raises(ArgumentError, match=r"cannot group by 'colour'; the dimensions are \['plan'"):
        forest(crossed(), average(), dimensions=dims, group_by="colour")


def test_a_points_area_is_in_proportion_to_its_units():
    (points,) = drawn(forest(devices(), average(), dimensions=["device"]), "point")
    mobile, desktop, _ = points.get_sizes()
    assert mobile / desktop == pytest.approx(6400 / 1600)
    assert [x for x, _ in points.get_offsets()] == pytest.approx([0.08, 0.03, -0.01])


def test_without_units_a_points_area_is_in_proportion_to_precision_and_the_columns_go():
    table = devices().drop(columns=["n_control", "n_treated"])
    table["raw_se"] = [0.02, 0.01, 0.02]
    figure = forest(table, average().drop(columns=["n_control", "n_treated"]), dimensions=["device"])
    (points,) = drawn(figure, "point")
    assert points.get_sizes()[0] / points.get_sizes()[1] == pytest.approx(4)
    said = texts(figure)
    assert "control" not in said
    assert "partially pooled, area by precision" in said


def test_unknown_units_are_shown_as_unknown():
    table = devices().astype({"n_control": "Int64"})
    table.loc[0, "n_control"] = pd.NA
    assert "–" in texts(forest(table, average(), dimensions=["device"]))


def test_raw_estimates_are_drawn_with_their_normal_interval():
    figure = forest(devices().iloc[:1], average(), dimensions=["device"])
    (points,) = drawn(figure, "raw_point")
    assert points.get_offsets()[0][0] == pytest.approx(-0.013)
    ends = [
        tuple(segment[:, 0])
        for artist in figure.findobj()
        if hasattr(artist, "get_segments")
        for segment in artist.get_segments()
    ]
    half = 1.959964 * 0.02 / 1.5
    assert any(end == pytest.approx((-0.013 - half, -0.013 + half)) for end in ends)


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_one_wild_raw_interval_is_clipped_and_does_not_squash_the_rest(layout):
    table = devices()
    table.loc[0, ["raw", "raw_se"]] = [3.0, 5.0]
    calm = forest(devices(), average(), dimensions=["device"], layout=layout)
    wild = forest(table, average(), dimensions=["device"], layout=layout)
    low, high = drawn(wild, "point")[0].axes.get_xlim()
    before = drawn(calm, "point")[0].axes.get_xlim()
    assert high - low < 1.7 * (before[1] - before[0])
    assert low < 0 < high
    arrows = [tuple(x) for artist in drawn(wild, "raw_arrow") for x in artist.get_offsets()]
    assert sorted(x for x, _ in arrows) == pytest.approx([low, high])
    assert len(drawn(wild, "raw_point")[0].get_offsets()) == 2  # the wild point itself lies beyond
    assert "goes on beyond the axis" in texts(wild)
    assert not [x for artist in drawn(calm, "raw_arrow") for x in artist.get_offsets()]


def test_a_segment_not_seen_in_one_arm_has_a_dagger_and_a_footnote():
    table = devices()
    table.loc[0, ["n_control", "raw", "raw_se"]] = [0, np.nan, np.nan]
    said = texts(forest(table, average(), dimensions=["device"]))
    assert "tablet †" in said
    assert "mobile" in said
    assert "† not seen in one arm: the estimate comes from the prior and other segments" in said
    assert not any("†" in text for text in texts(forest(devices(), average(), dimensions=["device"])))


def test_several_arms_have_a_block_and_a_diamond_each_on_one_axis():
    table = pd.concat([devices(), devices().assign(arm="push", effect=0.0)])
    figure = forest(table, pd.concat([average(), average("push", 0.01)]), dimensions=["device"])
    said = texts(figure)
    assert said.index("e-mail") < said.index("All (ATE)") < said.index("push")
    assert said.count("All (ATE)") == 2
    assert said.count("mobile") == 2
    diamonds = [artist for artist in figure.findobj() if artist.get_gid() == "ate_diamond"]
    assert [diamond.get_xy()[1][0] for diamond in diamonds] == pytest.approx([0.03, 0.01])
    assert diamonds[0].axes is diamonds[1].axes


def test_an_arm_without_an_average_effect_is_an_error():
    with pytest.raises(DataError, match=r"lacks the arms \['e-mail'\]; it has \['push'\]"):
        forest(devices(), average("push"), dimensions=["device"])


def test_missing_columns_and_empty_tables_are_errors():
    with pytest.raises(DataError, match=r"table of segments lacks the columns \['ci_low'\]"):
        forest(devices().drop(columns="ci_low"), average(), dimensions=["device"])
    with pytest.raises(DataError, match="no rows"):
        forest(devices().iloc[:0], average(), dimensions=["device"])


@pytest.mark.filterwarnings("ignore:no installed font has the characters")  # which fonts there are is not ours
@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_hostile_names_are_harmless(layout, tmp_path):
    table = pd.DataFrame([row({"$name_x$": ""}, 0.01 * i) for i in range(len(HOSTILE))])
    table["$name_x$"] = pd.Series(HOSTILE, dtype=object)
    table["arm"] = "<b>$arm$</b>"
    figure = forest(
        table,
        average("<b>$arm$</b>"),
        dimensions=["$name_x$"],
        layout=layout,
        title="$t_1$ <i>",
        caption="$c_1$ <u>",
        unit="$u_1$",
        control="$k_1$",
    )
    element = svg(figure, description='"><script>')
    assert not re.search("<(script|b|i|u)>", element)
    said = texts(figure)
    assert "<script>alert(1)</script>" in said
    assert "$a_b$ \\frac{1}{0} $" in said
    assert {"$name_x$", "$t_1$ <i>", "$c_1$ <u>", "change in $u_1$", "顧客セグメント 🎉"} <= set(said)
    assert "right to left" in said
    assert max(map(len, said)) < 90
    assert not any(ord(character) < 32 for text in said for character in text)
    assert save(figure, tmp_path / "hostile.png").stat().st_size > 0


def test_a_long_name_is_cut_in_the_middle_because_names_differ_at_the_end():
    one, other = (shorten_text(f"{'the same long beginning ' * 3}{end}") for end in ("new", "old"))
    assert one.endswith("new")
    assert other.endswith("old")
    assert len(one) <= 40
    assert "…" in one


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_segments_that_differ_in_a_middle_level_stay_distinguishable(layout):
    dims = ["bought", "customer", "history"]
    levels = [
        dict(zip(dims, ("bought women's only", c, "spent < $200"), strict=True)) for c in ("known one", "new one")
    ]
    table = pd.DataFrame([row(level, 0.01) for level in levels])
    said = " ".join(texts(forest(table, average(), dimensions=dims, group_by=None, layout=layout)))
    assert "bought women's only · known one · spent < $200" in said
    assert "bought women's only · new one · spent < $200" in said


def test_width_allows_for_glyphs_that_only_the_browser_has():
    assert measure_width("顧客", 10.0) >= 19
    assert measure_width("顧客", 10.0) == pytest.approx(2 * measure_width("顧", 10.0), rel=0.05)


@pytest.mark.parametrize("layout", ["wide", "narrow"])
@pytest.mark.parametrize("segments", [3, 60])
def test_texts_do_not_overlap(layout, segments):
    table = sixty().head(segments)
    figure = forest(table, average(), dimensions=["region", "branch"], layout=layout, title="A title " * 20)
    assert len(boxes(figure)) > 4 * segments
    assert overlaps(figure) == []


def test_text_columns_stay_clear_of_the_bars():
    table = sixty()
    table.loc[0, "branch"] = "W" * 60
    figure = forest(table, average(), dimensions=["region", "branch"])
    found = boxes(figure)
    area = drawn(figure, "point")[0].axes.get_window_extent()
    for text, (left, bottom, right, top) in found:
        if bottom > area.y0 and top < area.y1:
            assert right < area.x0 or left > area.x1, text


def test_more_segments_make_a_taller_figure_with_the_same_rows():
    few, many = (forest(sixty().head(n), average(), dimensions=["branch"]) for n in (30, 60))
    assert many.get_figwidth() == pytest.approx(few.get_figwidth(), rel=0.2)
    assert (many.get_figheight() - few.get_figheight()) * 72 == pytest.approx(30 * 22)


def test_the_narrow_layout_is_as_wide_as_a_phone_with_readable_text():
    figure = forest(sixty(), average(), dimensions=["region", "branch"], layout="narrow")
    root = ET.fromstring(svg(figure, description="test"))  # noqa: S314 - our own output
    assert root.attrib["viewBox"].split()[2] == "390"
    sizes = [float(size) for size in re.findall(r"font-size: ([0-9.]+)px", svg(figure, description="test"))]
    assert min(sizes) >= 11


def test_a_given_figure_subfigure_or_axes_is_drawn_into_and_returned():
    given = Figure(figsize=(9, 5))
    assert forest(devices(), average(), dimensions=["device"], figure=given) is given
    assert given.get_size_inches() == pytest.approx([9, 5])
    left, right = Figure(figsize=(16, 5)).subfigures(1, 2)
    assert forest(devices(), average(), dimensions=["device"], figure=left) is left
    assert shrinkage(devices(), average(), dimensions=["device"], figure=right) is right
    axes = Figure(figsize=(9, 5)).subplots()
    assert forest(devices(), average(), dimensions=["device"], ax=axes) is axes.figure
    assert drawn(axes.figure, "point")
    with pytest.raises(ArgumentError, match="both figure and ax"):
        forest(devices(), average(), dimensions=["device"], figure=given, ax=axes)


def test_in_a_small_figure_everything_shrinks_and_stays_inside():
    given = forest(sixty(), average(), dimensions=["region", "branch"], figure=Figure(figsize=(7, 11), dpi=200))
    assert overlaps(given) == []
    for text, (left, bottom, right, top) in boxes(given):
        assert left >= 0, text
        assert bottom >= 0, text
        assert right <= 1400, text
        assert top <= 2200, text


def test_figures_stay_out_of_pyplots_global_state():
    plt.close("all")
    forest(devices(), average(), dimensions=["device"])
    shrinkage(devices(), average(), dimensions=["device"])
    assert plt.get_fignums() == []
    code = "import sys, bayes_hte.plot; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_svg_is_deterministic_and_has_no_date():
    one, two = (svg(forest(devices(), average(), dimensions=["device"]), description="d") for _ in range(2))
    assert one == two
    assert one.startswith("<svg ")
    for absent in ("<?xml", "<!DOCTYPE", "<metadata", "<style", "dc:date", "<script"):
        assert absent not in one


def test_svg_is_an_image_with_a_description_and_scales():
    root = ET.fromstring(svg(forest(devices(), average(), dimensions=["device"]), description='a "b" <c>'))  # noqa: S314
    assert root.tag == f"{SVG}svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'a "b" <c>'
    assert root.attrib["width"] == "100%"
    assert "height" not in root.attrib
    fonts = {
        style for text in root.iter(f"{SVG}text") for style in re.findall("font-family: ([^;]+)", text.get("style"))
    }
    assert fonts == {"DejaVu Sans, Verdana, sans-serif"}


def test_ids_of_two_svgs_on_one_page_do_not_clash_and_every_link_resolves():
    figure = forest(devices(), average(), dimensions=["device"])
    ids = {}
    for prefix in ("first", "second"):
        element = svg(figure, description="d", prefix=prefix)
        ids[prefix] = set(re.findall(r' id="([^"]+)"', element))
        links = set(re.findall(r'href="#([^"]+)"', element)) | set(re.findall(r"url\(#([^)]+)\)", element))
        assert links
        assert links <= ids[prefix]
    assert not ids["first"] & ids["second"]
    with pytest.raises(ArgumentError, match="prefix"):
        svg(figure, description="d", prefix='"><script>')


@pytest.mark.parametrize("suffix", [".svg", ".png", ".PNG"])
def test_save_writes_the_whole_file_and_leaves_nothing_else(tmp_path, suffix):
    path = save(forest(devices(), average(), dimensions=["device"]), tmp_path / f"forest{suffix}")
    assert list(tmp_path.iterdir()) == [path]
    content = path.read_bytes()
    if suffix == ".svg":
        assert ET.fromstring(content).attrib["width"].endswith("pt")  # noqa: S314 - our own output
    else:
        assert content.startswith(b"\x89PNG")
        pixels = int.from_bytes(content[16:20], "big")
        assert pixels == pytest.approx(forest(devices(), average(), dimensions=["device"]).get_figwidth() * 200, abs=1)


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for suffix in (".svg", ".png"):
        paths = [
            save(forest(devices(), average(), dimensions=["device"]), tmp_path / f"{name}{suffix}") for name in "ab"
        ]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_file_that_cannot_be_written_is_an_output_error_and_leaves_nothing(tmp_path):
    figure = forest(devices(), average(), dimensions=["device"])
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot be written"):
        save(figure, tmp_path / "file" / "inside.png")
    with pytest.raises(OutputError, match=r"must end in .svg or .png"):
        save(figure, tmp_path / "forest.pdf")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        save(figure, tmp_path / "folder.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.svg"]


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    target = tmp_path / "forest.svg"
    target.write_text("old")
    real = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        real(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        save(forest(devices(), average(), dimensions=["device"]), target)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_probability_is_never_printed_as_0_or_1():
    for value in [0.0, 1.0, *np.linspace(0, 1, 20_001)]:
        assert format_percent_probability(float(value)) not in {"0.0\N{NO-BREAK SPACE}%", "100.0\N{NO-BREAK SPACE}%"}
        assert re.fullmatch(r"(>.99\.9|<.0\.1|\d+\.\d).%", format_percent_probability(float(value)))
    assert format_percent_probability(math.nan) == "–"


def test_numbers_have_a_true_minus_and_zero_has_no_sign():
    assert format_number(-1.25, 1) == "−1.2"
    assert format_number(-0.001, 1) == "0.0"
    assert format_number(math.nan, 1) == "–"
    assert choose_decimals([0.034, 0.1, 0.011]) == 3
    assert choose_decimals([math.nan]) == 2
    assert clean_text("a\tb\x07") == "a b\ufffd"


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_rows_without_any_numbers_are_drawn_as_unknown(layout):
    table = devices()
    table.loc[0, ["raw", "raw_se", "effect", "ci_low", "ci_high", "p_positive"]] = np.nan
    said = texts(forest(table, average(), dimensions=["device"], layout=layout))
    assert said.index("tablet") > said.index("mobile")
    assert "–" in said


def test_shrinkage_points_from_raw_to_pooled_at_the_smaller_arms_size():
    table = devices()
    table.loc[1, "n_treated"] = 300
    figure = shrinkage(table, average(), dimensions=["device"], percent=True, labels=1)
    raw = sorted(tuple(point) for artist in drawn(figure, "raw_point") for point in artist.get_offsets())
    pooled = sorted(tuple(point) for artist in drawn(figure, "point") for point in artist.get_offsets())
    assert np.array(raw) == pytest.approx(np.array([(300, 10.4), (400, -1.3), (1600, 3.9)]))
    assert np.array(pooled) == pytest.approx(np.array([(300, 8.0), (400, -1.0), (1600, 3.0)]))
    assert drawn(figure, "raw_point")[0].axes.get_xscale() == "log"
    assert {"mobile", "tablet", "desktop"} & set(texts(figure)) == {"mobile"}


def test_shrinkage_clips_a_wild_raw_estimate():
    table = devices()
    table.loc[0, "raw"] = 40.0
    figure = shrinkage(table, average(), dimensions=["device"])
    assert drawn(figure, "raw_point")[0].axes.get_ylim()[1] < 0.5
    assert sum(len(artist.get_offsets()) for artist in drawn(figure, "raw_arrow")) == 1


def test_shrinkage_has_a_panel_per_arm_and_counts_what_it_leaves_out():
    table = pd.concat([devices(), devices().assign(arm="push", raw=[np.nan, 0.1, 0.2])])
    figure = shrinkage(table, pd.concat([average(), average("push")]), dimensions=["device"])
    assert len({artist.axes for artist in drawn(figure, "raw_point")}) == 2
    assert "1 of 6 segments have no raw estimate of their own and are not shown." in texts(figure)
    with pytest.raises(DataError, match="no segment has a raw estimate"):
        shrinkage(devices().assign(raw=np.nan), average(), dimensions=["device"])


def test_shrinkage_of_published_estimates_uses_their_standard_errors():
    table = devices().drop(columns=["n_control", "n_treated"])
    table["raw_se"] = [0.01, 0.02, 0.03]
    figure = shrinkage(table, average(), dimensions=["device"])
    low, high = drawn(figure, "raw_point")[0].axes.get_xlim()
    assert low > high  # the least certain are on the left, as the smallest segments are
    assert "standard error of the raw estimate" in texts(figure)


def test_names_in_the_shrinkage_plot_do_not_overlap():
    figure = shrinkage(sixty(), average(), dimensions=["region", "branch"], labels=12, percent=True)
    assert overlaps(figure) == []


def test_the_examples_in_the_docstrings_run():
    for module in pkgutil.iter_modules(bayes_hte.plot.__path__, "bayes_hte.plot."):
        result = doctest.testmod(importlib.import_module(module.name), optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
        assert result.failed == 0, module.name
