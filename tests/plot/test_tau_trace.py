"""The tau trace, from tables alone: the toy model behind them has a closed form, and nothing here fits anything."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from drawn_text import HOSTILE, boxes, overlaps, texts
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from bayes_hte._support.phrases import clean_text
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.plot import save, svg, trace

KINDS = ("curve", "turning_curve", "other_curve", "other_turning_curve")
Tables = tuple[pd.DataFrame, pd.DataFrame]


def pooled(raw, se, names=None, *, arm: str = "new", end: float = 20.0, points: int = 41) -> Tables:
    """Conditional means of a normal model with a flat prior of the mean, and the posterior of tau under a flat one."""
    raw, se = np.asarray(raw, dtype=float), np.asarray(se, dtype=float)
    names = [f"school {letter}" for letter in "ABCDEFGHIJ"[: len(raw)]] if names is None else names
    tau = np.linspace(0, end, points)
    variance = se**2 + tau[:, None] ** 2
    mean, spread = (raw / variance).sum(1) / (1 / variance).sum(1), 1 / (1 / variance).sum(1)
    borrowed = se**2 / variance
    effect = borrowed * mean[:, None] + (1 - borrowed) * raw
    sd = np.sqrt(borrowed**2 * spread[:, None] + borrowed * tau[:, None] ** 2)
    log = (np.log(spread) - np.log(variance).sum(1) - ((raw - mean[:, None]) ** 2 / variance).sum(1)) / 2
    parts = [
        pd.DataFrame({"arm": arm, "tau": tau, "effect": effect[:, s], "sd": sd[:, s]}).assign(
            segment=pd.Series([name] * points, dtype=object)
        )
        for s, name in enumerate(names)
    ]
    density = np.exp(log - log.max())
    return pd.concat(parts, ignore_index=True), pd.DataFrame({"arm": arm, "tau": tau, "density": density})


def schools(**others) -> Tables:
    return pooled([28, 8, -3, 7, -1, 1, 18, 12], [15, 10, 16, 11, 9, 11, 10, 18], **others)


def branches(count: int, arm: str = "new") -> Tables:
    rng = np.random.default_rng(3)
    se = rng.uniform(0.5, 4, count)
    raw = rng.normal(0.5, 1, count) + rng.normal(0, se)
    return pooled(raw, se, [f"region {s % 5}, branch {s}" for s in range(count)], arm=arm, end=4)


def triangle(arm: str = "new") -> pd.DataFrame:
    """A density that falls from 0 to 2: the mass below tau is tau - tau² / 4."""
    return pd.DataFrame({"arm": arm, "tau": [0.0, 2.0], "density": [1.0, 0.0]})


def straight(ends: dict[str, tuple[float, float]], arm: str = "new", last: float = 2.0) -> pd.DataFrame:
    rows = [
        (name, arm, tau, effect) for name, pair in ends.items() for tau, effect in zip((0.0, last), pair, strict=True)
    ]
    return pd.DataFrame(rows, columns=["segment", "arm", "tau", "effect"])


def draw(tables: Tables, **others) -> Figure:
    return trace(*tables, dimensions=["segment"], **others)


def collections(figure: Figure, *kinds: str) -> list[LineCollection]:
    return [artist for artist in figure.findobj(LineCollection) if artist.get_gid() in (kinds or KINDS)]


def curves(figure: Figure, *kinds: str) -> list[np.ndarray]:
    """The lines of some kinds, as rows of tau and effect."""
    return [curve for artist in collections(figure, *kinds) for curve in artist.get_segments()]


def filled(figure: Figure, gid: str) -> list[PolyCollection]:
    return [artist for artist in figure.findobj(PolyCollection) if artist.get_gid() == gid]


def test_every_segment_is_a_line_through_its_data():
    table, density = schools()
    drawn = curves(draw((table, density)))
    expected = [part[["tau", "effect"]].to_numpy() for _, part in table.groupby("segment")]
    assert len(drawn) == 8
    for line in expected:
        assert any(np.array_equal(line, other) for other in drawn)
    assert len({tuple(line[0]) for line in np.round(drawn, 9)}) == 1  # all meet where nothing differs


def test_percent_multiplies_effects_and_leaves_tau_alone():
    table = straight({"a": (0.02, 0.05), "b": (0.02, 0.01)})
    figure = draw((table, triangle()), percent=True, unit="visits")
    ends = sorted(tuple(line[-1]) for line in curves(figure))
    assert ends == [pytest.approx((2, 1)), pytest.approx((2, 5))]
    assert "change in visits, percentage points" in texts(figure)


def test_the_density_lies_under_the_lines_on_the_same_axis():
    figure = draw((straight({"a": (1, 3), "b": (1, 0.5)}), triangle()))
    (lower,) = filled(figure, "density_area")
    upper = collections(figure, "curve")[0].axes
    assert lower.axes.get_shared_x_axes().joined(lower.axes, upper)
    assert upper.get_xlim() == lower.axes.get_xlim() == (0, 2)
    above, below = upper.get_position(), lower.axes.get_position()
    assert above.y0 > below.y1
    assert (above.x0, above.x1) == pytest.approx((below.x0, below.x1))
    (path,) = lower.get_paths()
    assert (0, 1) in {tuple(point) for point in path.vertices}


def test_median_and_interval_of_tau_are_those_of_the_density():
    figure = draw((straight({"a": (1, 3), "b": (1, 0.5)}), triangle()), ci_prob=0.8)
    low, median, high = (2 - 2 * np.sqrt(1 - p) for p in (0.1, 0.5, 0.9))
    (interval,) = filled(figure, "density_interval")
    places = interval.get_paths()[0].vertices[:, 0]
    # Mass is interpolated linearly between 33 points: errors are at most slope × step² / 8 over the density.
    tolerance = (2 / 32) ** 2 / 8 / 2 / (1 - high / 2)
    assert (places.min(), places.max()) == pytest.approx((low, high), abs=tolerance)
    verticals = {
        round(float(line.get_xdata()[0]), 2) for line in figure.findobj(plt.Line2D) if line.get_linestyle() == "--"
    }
    assert round(median, 2) in verticals
    assert f"posterior median {median:.2f}, 80 % interval {low:.2f} to {high:.2f}" in texts(figure)
    assert "80 % interval of tau" in texts(figure)


def test_the_band_behind_lines_and_density_is_the_interval():
    figure = draw(schools())
    figure.draw(FigureCanvasAgg(figure).get_renderer())
    (band,), (interval,) = filled(figure, "tau_band"), filled(figure, "density_interval")
    one, other = (artist.get_window_extent() for artist in (band, interval))
    assert (one.x0, one.x1) == pytest.approx((other.x0, other.x1))
    assert one.y1 == pytest.approx(collections(figure, "curve")[0].axes.get_window_extent().y1)
    assert one.y0 == pytest.approx(other.y0)


def test_lines_are_paler_outside_the_interval():
    figure = draw(schools())
    (interval,) = filled(figure, "density_interval")
    places = interval.get_paths()[0].vertices[:, 0]
    veils = [artist for artist in figure.findobj(plt.Rectangle) if artist.get_alpha() == 0.5]
    ends = sorted((veil.get_x(), veil.get_x() + veil.get_width()) for veil in veils)
    assert ends == [pytest.approx((0, places.min())), pytest.approx((places.max(), 20))]
    named = collections(figure, "curve")[0]
    assert all(veil.get_zorder() > named.get_zorder() for veil in veils)


def test_the_named_segments_are_furthest_from_the_common_effect_at_the_median_of_tau():
    # The median is 2 - √2 = 0.59; "late" is the most extreme in the end, but not there.
    tau = [0.0, 1.0, 2.0]
    ends = {"up": (1, 3, 3), "down": (1, -2, -2), "calm": (1, 1.2, 1.2), "late": (1, 1.1, 9)}
    rows = [(name, "new", t, e) for name, effects in ends.items() for t, e in zip(tau, effects, strict=True)]
    figure = draw((pd.DataFrame(rows, columns=["segment", "arm", "tau", "effect"]), triangle()), labels=2)
    assert {"up", "down", "calm", "late"} & set(texts(figure)) == {"up", "down"}
    assert {line[-1][1] for line in curves(figure, "curve", "turning_curve")} == {3, -2}
    assert {"furthest from the common effect", "other segments"} <= set(texts(figure))


def test_with_few_segments_all_are_named_and_the_key_says_less():
    said = texts(draw(schools()))
    assert {f"school {letter}" for letter in "ABCDEFGH"} <= set(said)
    assert "other segments" not in said
    assert "furthest from the common effect" not in said


def test_segments_can_be_left_without_names():
    figure = draw(schools(), labels=0)
    assert len(curves(figure, "other_curve")) == 8
    assert not any("school" in text for text in texts(figure))


def test_names_come_in_the_order_of_the_lines_they_belong_to():
    table, density = schools()
    last = table.groupby("segment")["effect"].last().sort_values(ascending=False)
    figure = draw((table, density))
    heights = {text: box[1] for text, box in boxes(figure) if text.startswith("school")}
    assert sorted(heights, key=lambda name: -heights[name]) == list(last.index)


def test_lines_that_change_sign_inside_the_interval_are_marked_and_counted():
    # Half of the mass of the triangle lies between 0.27 and 1: the sign of "soon" turns there, of "later" after it.
    table = straight({"soon": (1, -2), "later": (1, -0.2), "never": (1, 4)})
    figure = draw((table, triangle()), ci_prob=0.5)
    (turning,) = curves(figure, "turning_curve")
    assert turning[-1][1] == -2
    assert "1 of 3 segments changes sign inside the 50 % interval of tau." in texts(figure)
    assert "changes sign inside the band" in texts(figure)
    calm = texts(draw((table[table["segment"] != "soon"], triangle()), ci_prob=0.5))
    assert "No segment changes sign inside the 50 % interval of tau." in calm
    assert "changes sign inside the band" not in calm


def widths(figure: Figure) -> dict[float, float]:
    """Thickness of every line by its last effect."""
    found = [artist for artist in collections(figure) if artist.get_segments()]
    pairs = [zip(artist.get_segments(), artist.get_linewidths(), strict=True) for artist in found]
    return {round(float(line[-1][1]), 6): float(width) for pair in pairs for line, width in pair}


def test_lines_with_more_units_are_thicker():
    table = straight({"small": (1, 2), "large": (1, 3), "unknown": (1, 4)})
    units = table["segment"].map({"small": 10, "large": 1000}).astype("Int64")
    figure = draw((table.assign(n_control=units, n_treated=units, sd=1.0), triangle()))
    thick = widths(figure)
    assert thick[3] > thick[2] > thick[4] > 0
    assert any("Thicker lines have more units." in text for text in texts(figure))


def test_without_units_lines_with_a_smaller_standard_error_are_thicker():
    table = straight({"vague": (1, 2), "sharp": (1, 3)}).assign(n_control=np.nan, n_treated=np.nan, sd=[9, 2, 9, 1])
    figure = draw((table, triangle()))
    assert widths(figure)[3] > widths(figure)[2]
    assert any("Thicker lines have a smaller standard error." in text for text in texts(figure))
    plain = draw((table.drop(columns=["n_control", "n_treated", "sd"]), triangle()))
    assert widths(plain)[3] == widths(plain)[2]
    assert not any("Thicker" in text for text in texts(plain))


def test_every_arm_has_a_panel_with_its_own_tau_and_the_same_effects():
    table = pd.concat([straight({"a": (1, 3), "b": (1, 0.5)}), straight({"a": (0, 9)}, "push", last=5)])
    density = pd.concat([triangle("push"), triangle()])
    figure = draw((table, density))
    panels = {artist.axes for artist in collections(figure, "curve")}
    assert sorted(panel.get_xlim() for panel in panels) == [(0, 2), (0, 5)]
    assert len({panel.get_ylim() for panel in panels}) == 1
    assert len(filled(figure, "density_area")) == 2
    said = texts(figure)
    assert said.index("new") < said.index("push")
    assert said.count("a") == 2
    assert "new" not in texts(draw((straight({"a": (1, 3)}), triangle())))


def test_a_density_that_goes_on_beyond_the_lines_or_lies_there_is_drawn_as_far_as_they_go():
    table = straight({"a": (1, 3), "b": (1, 0.5)}, last=0.5)
    assert "posterior median 0.59, 95 % interval 0.03 to 1.68" in texts(draw((table, triangle())))
    beyond = triangle().assign(tau=[7.0, 9.0])
    figure = draw((table, beyond))
    assert filled(figure, "density_area")[0].axes.get_xlim() == (0, 0.5)
    assert "posterior median 7.6, 95 % interval 7.0 to 8.7" in texts(figure)


def test_levels_of_several_dimensions_are_joined_into_one_name():
    table = straight({"a": (1, 3), "b": (1, 0.5)}).assign(plan="pro")
    said = texts(trace(table, triangle(), dimensions=["plan", "segment"]))
    assert {"pro · a", "pro · b"} <= set(said)


@pytest.mark.filterwarnings("ignore:no installed font has the characters")  # which fonts there are is not ours
@pytest.mark.parametrize("width", [620, 390])
def test_hostile_names_are_shown_as_text(width, tmp_path):
    table, density = schools(names=HOSTILE, arm="<b>$arm$</b>")
    table = table.rename(columns={"segment": "$name_x$"})
    more, other = straight({"": (1, 2)}, "$z").rename(columns={"segment": "$name_x$"}), triangle("$z")
    figure = trace(
        pd.concat([table, more]),
        pd.concat([density, other]),
        dimensions=["$name_x$"],
        title="$t_1$ <i>",
        caption="$c_1$ <u>",
        unit="$u_1$",
        tau_label="$tau_1$ <u>",
        figure=Figure(figsize=(width / 72, 14)),
    )
    assert not re.search("<(script|b|i|u)>", svg(figure, description='"><script>'))
    said = texts(figure)
    wanted = {
        "<b>$arm$</b>",
        "$t_1$ <i>",
        "$c_1$ <u>",
        "change in $u_1$",
        "$tau_1$ <u>",
        "顧客セグメント 🎉",
        "right to left",
    }
    assert wanted <= set(said)
    if width == 620:
        assert {clean_text(name) for name in HOSTILE if 0 < len(name) < 300} <= set(said)
    assert not any(ord(character) < 32 for text in said for character in text)
    assert max(map(len, said)) < 110
    assert save(figure, tmp_path / "hostile.png").stat().st_size > 0


@pytest.mark.parametrize("count", [2, 8, 30, 200])
@pytest.mark.parametrize("width", [620, 390])
def test_texts_neither_overlap_nor_leave_the_figure(count, width):
    figure = Figure(figsize=(width / 72, 10), dpi=200)
    draw(branches(count), figure=figure, labels=30, title="A title " * 20, caption="A caption. " * 30, percent=True)
    assert overlaps(figure) == []
    for text, (left, bottom, right, top) in boxes(figure):
        assert left >= 0, text
        assert bottom >= 0, text
        assert right <= width / 72 * 200, text
        assert top <= 2000, text


def test_two_hundred_segments_take_no_more_room_than_thirty():
    many, few = draw(branches(200), max_segments=None), draw(branches(30))
    assert (many.get_size_inches() == few.get_size_inches()).all()
    assert len(curves(many)) == 200
    assert len(curves(many, "curve", "turning_curve")) == len(curves(few, "curve", "turning_curve")) == 8
    assert sum("branch" in text for text in texts(many)) == 8
    quiet = [
        np.mean([artist.get_linewidths() for artist in collections(figure, "other_curve")]) for figure in (many, few)
    ]
    assert quiet[0] < quiet[1]


def test_lines_without_a_name_do_not_cover_those_with_one():
    figure = draw(branches(30))
    orders = {artist.get_gid(): artist.get_zorder() for artist in collections(figure)}
    assert max(orders["other_curve"], orders["other_turning_curve"]) < min(orders["curve"], orders["turning_curve"])


def test_a_given_figure_subfigure_or_axes_is_drawn_into_and_returned():
    given = Figure(figsize=(9, 7))
    assert draw(schools(), figure=given) is given
    assert given.get_size_inches() == pytest.approx([9, 7])
    left, right = Figure(figsize=(16, 7)).subfigures(1, 2)
    assert draw(schools(), figure=right) is right
    assert curves(right)
    assert not curves(left)
    axes = Figure(figsize=(9, 7)).subplots()
    assert draw(schools(), ax=axes) is axes.figure
    assert curves(axes.figure)
    with pytest.raises(ArgumentError, match="both figure and ax"):
        draw(schools(), figure=given, ax=axes)


def test_in_a_figure_350_pixels_wide_everything_shrinks_and_stays_inside():
    given = draw(schools(), figure=Figure(figsize=(3.5, 5), dpi=100), caption="A caption. " * 20)
    for text, (left, bottom, right, top) in boxes(given):
        assert left >= 0, text
        assert bottom >= 0, text
        assert right <= 350, text
        assert top <= 500, text


def test_svg_is_deterministic_and_every_link_resolves(tmp_path):
    one, two = (svg(draw(schools()), description="d", prefix="trace") for _ in range(2))
    assert one == two
    links = set(re.findall(r'href="#([^"]+)"', one)) | set(re.findall(r"url\(#([^)]+)\)", one))
    assert links <= set(re.findall(r' id="([^"]+)"', one))
    paths = [save(draw(schools()), tmp_path / f"{name}.svg") for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_figure_stays_out_of_pyplots_global_state():
    plt.close("all")
    draw(schools())
    assert plt.get_fignums() == []


def test_missing_columns_and_empty_tables_are_errors():
    table, density = schools()
    with pytest.raises(DataError, match=r"table of effect lacks the columns \['effect'\]; it has \['arm', 'tau'"):
        draw((table.drop(columns="effect"), density))
    with pytest.raises(DataError, match=r"table of effect lacks the columns \['colour'\]"):
        trace(table, density, dimensions=["colour"])
    with pytest.raises(DataError, match=r"table of density lacks the columns \['arm', 'density'\]"):
        draw((table, density[["tau"]]))
    with pytest.raises(DataError, match="table of effect has no rows"):
        draw((table.iloc[:0], density))
    with pytest.raises(DataError, match="table of density has no rows"):
        draw((table, density.iloc[:0]))
    with pytest.raises(DataError, match=r"lacks the arm 'new'; it has \['push'\]"):
        draw((table, density.assign(arm="push")))


def test_tables_that_make_no_sense_are_errors():
    table, density = schools()
    for wrong in (0, 1, 95, float("nan")):
        with pytest.raises(ArgumentError, match="ci_prob must be between 0 and 1"):
            draw((table, density), ci_prob=wrong)
    with pytest.raises(DataError, match="'school A' in arm 'new': every tau and effect must be a finite number"):
        draw((table.assign(effect=np.nan), density))
    with pytest.raises(
        DataError, match=r"'school A' in arm 'new': tau must increase .*, from 0 or more; found \[20.0, "
    ):
        draw((table.iloc[::-1].sort_values("segment", kind="stable"), density))
    with pytest.raises(DataError, match=r"found \[-1.0, "):
        draw((table.assign(tau=table["tau"] - 1), density))
    with pytest.raises(DataError, match=r"at least two rows, from 0 or more; found \[2.0\]"):
        draw((table[table["tau"] == 2], density))
    with pytest.raises(DataError, match="'school A' and 'school B' in arm 'new' have different grids"):
        draw((table.drop(index=table.index[-1 - 6 * 41]), density))
    for wrong in (0.0, -1.0):
        with pytest.raises(
            DataError, match="density of tau in arm 'new' must be positive somewhere and negative nowhere"
        ):
            draw((table, density.assign(density=wrong)))
