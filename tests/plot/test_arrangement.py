"""Rows of figures: one order for all arms, and of many segments the few that stand out."""

import itertools
import re
import time
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from drawn_text import texts
from example_posterior import example_fit
from matplotlib.figure import Figure

import bayes_hte as hte
from bayes_hte.plot import draw_forest, draw_shrinkage, draw_tau_trace
from bayes_hte.plot.arrangement import arrange_blocks, select_outstanding
from bayes_hte.plot.drawing.names import Move, place_names
from bayes_hte.plot.rows import read_blocks


def many_rows(count: int, arms: tuple[str, ...] = ("new",)) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(4)
    effects = rng.normal(0.1, 0.1, (len(arms), count))
    tables = [
        pd.DataFrame(
            {
                "place": [f"place {index}" for index in range(count)],
                "arm": arm,
                "n_control": rng.integers(50, 5000, count),
                "n_treated": rng.integers(50, 5000, count),
                "raw": effect + rng.normal(0, 0.1, count),
                "raw_se": 0.1,
                "effect": effect,
                "ci_low": effect - 0.15,
                "ci_high": effect + 0.15,
                "p_positive": 0.8,
            }
        )
        for arm, effect in zip(arms, effects, strict=True)
    ]
    ate = pd.DataFrame({"arm": list(arms), "effect": 0.1, "ci_low": 0.05, "ci_high": 0.15, "p_positive": 0.999})
    return pd.concat(tables, ignore_index=True), ate


def test_a_third_each_is_selected_and_nothing_twice() -> None:
    effects = [float(value) for value in np.random.default_rng(1).normal(size=100)] + [float("nan")]
    movements = [abs(index - 50.0) for index in range(101)]
    largest, moved, smallest = select_outstanding(effects, movements, 12)
    by_effect = sorted(range(100), key=lambda index: -effects[index])
    assert (largest, smallest) == (by_effect[:4], by_effect[-4:])
    assert len(moved) == 4
    assert not {*largest, *smallest} & set(moved)
    least_moved = min(movements[index] for index in moved)
    assert all(movements[index] <= least_moved for index in set(range(101)) - {*largest, *moved, *smallest})


def test_few_segments_are_all_drawn_without_a_word() -> None:
    table, ate = many_rows(60)
    blocks = read_blocks(table, ate, dimension_names=["place"], group_by=None, effect_factor=1.0)
    arranged, note = arrange_blocks(blocks, "effect", 60)
    assert note == ""
    assert len(arranged[0].estimates) == 60


def test_several_arms_have_one_order_and_one_selection() -> None:
    table, ate = many_rows(200, ("one", "two", "three"))
    blocks = read_blocks(table, ate, dimension_names=["place"], group_by=None, effect_factor=1.0)
    for max_segments in (None, 30):
        arranged, _ = arrange_blocks(blocks, "effect", max_segments)
        orders = [[estimate.segment_label for estimate in block.estimates] for block in arranged]
        assert orders[0] == orders[1] == orders[2]
        assert len(orders[0]) == (max_segments or 200)
    mean_effects = table.groupby("place")["effect"].mean()
    arranged, _ = arrange_blocks(blocks, "effect", None)
    assert [estimate.segment_label for estimate in arranged[0].estimates] == list(
        mean_effects.sort_values(ascending=False).index
    )


def test_rows_of_equal_labels_and_arms_that_lack_some_are_kept() -> None:
    table, ate = many_rows(5, ("one", "two"))
    table["place"] = "same"
    table = table.drop(index=[7])
    blocks = read_blocks(table, ate, dimension_names=["place"], group_by=None, effect_factor=1.0)
    arranged, _ = arrange_blocks(blocks, "effect", None)
    assert [len(block.estimates) for block in arranged] == [5, 4]


@pytest.mark.parametrize("draw", [draw_forest, draw_shrinkage])
def test_of_many_segments_a_line_says_what_is_drawn(draw) -> None:  # type: ignore[no-untyped-def]
    table, ate = many_rows(2000)
    start = time.process_time()
    words = " ".join(texts(draw(table, ate, dimensions=["place"], max_segments=45)))
    # Two hundred milliseconds on a quiet machine: what is not drawn costs nothing.
    assert time.process_time() - start < 10
    note = (
        "45 of 2,000 segments are drawn: the 15 largest effects, the 15 smallest, and the 15 others that pooling moved"
    )
    assert note in words


def test_of_many_curves_a_line_says_what_is_drawn() -> None:
    tau = np.linspace(0, 1, 5)
    table = pd.DataFrame(
        [
            {"place": f"p{index}", "arm": "new", "tau": value, "effect": 0.1 + value * index / 400}
            for index in range(400)
            for value in tau
        ]
    )
    density = pd.DataFrame({"arm": "new", "tau": tau, "density": 1.0})
    figure = draw_tau_trace(table, density, dimensions=["place"], max_segments=30)
    assert "30 of 400 segments are drawn" in " ".join(texts(figure))


@pytest.mark.parametrize("max_segments", [0, 2, 2.5, "all", True])
def test_a_limit_that_makes_no_sense_is_refused(max_segments: object) -> None:
    table, ate = many_rows(4)
    for draw in (draw_forest, draw_shrinkage):
        with pytest.raises(hte.ArgumentError, match="max_segments is how many segments to draw"):
            draw(table, ate, dimensions=["place"], max_segments=max_segments)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(2.0, 1.5), (3.0, 2.0), (0.4, 0.3)])
@pytest.mark.parametrize("view", ["plot_forest", "plot_shrinkage", "plot_tau_trace"])
def test_a_small_place_is_drawn_readably_or_refused_in_one_sentence(view: str, size: tuple[float, float]) -> None:
    fit = hte.example_fit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        refusal_text = ""
        try:
            getattr(fit, view)(ax=axes)
        except hte.ArgumentError as refusal:
            refusal_text = str(refusal)
        figure.canvas.draw()
    if refusal_text:
        assert re.match(r"a place of .* inches is too small for this figure to be read; give it at least", refusal_text)
        return
    sizes = [text.get_fontsize() for text in axes.texts]
    assert min(sizes) >= 4.0


def test_shrinkage_fits_a_grid_of_four_and_a_phone() -> None:
    table, ate = many_rows(12)
    figure = Figure(figsize=(7, 6))
    for axes in figure.subplots(2, 2).ravel():
        draw_shrinkage(table, ate, dimensions=["place"], ax=axes)
        assert min(text.get_fontsize() for text in axes.texts) >= 6.0
    assert draw_shrinkage(table, ate, dimensions=["place"], layout="narrow").get_figwidth() * 72 == pytest.approx(390)
    with pytest.raises(hte.ArgumentError, match="no layout 'tall'; there are wide, narrow"):
        draw_shrinkage(table, ate, dimensions=["place"], layout="tall")  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_no_line_mark_or_other_name_runs_through_a_name(seed: int) -> None:
    rng = np.random.default_rng(seed)
    moves = [Move(*map(float, (x, *rng.uniform(10, 190, 2)))) for x in rng.uniform(10, 390, 25)]
    guides = [20.0, 60.0, 100.0, 140.0, 180.0]
    names = place_names([(f"name {i}", move) for i, move in enumerate(moves)], moves, guides, (0, 0, 400, 200), 10.0)
    assert names
    boxes = []
    for name in names:
        width = mpl_width(name.text)
        left = {"left": name.x, "center": name.x - width / 2, "right": name.x - width}[name.align]
        boxes.append((left, name.y - 3.6, left + width, name.y + 3.6))  # capitals are 0.72 of the font size high
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 400
        assert not any(top < guide < bottom for guide in guides)
        assert not any(
            left < move.x < right and min(move.y_raw, move.y_pooled) < bottom and max(move.y_raw, move.y_pooled) > top
            for move in moves
        )
    for first, second in itertools.pairwise(boxes):
        assert first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]


def mpl_width(text: str) -> float:
    from bayes_hte.plot.drawing.text import measure_width

    return measure_width(text, 10.0)


def test_winners_losers_and_the_most_moved_are_named_first() -> None:
    table, ate = many_rows(40)
    figure = draw_shrinkage(table, ate, dimensions=["place"], labels=3, visuals=None)
    named = {text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == "label"}
    best, worst = (table["place"][getattr(table["effect"], which)()] for which in ("idxmax", "idxmin"))
    others = table[~table["place"].isin([best, worst])]
    moved = others["place"][(others["raw"] - others["effect"]).abs().idxmax()]
    # One may find no free place; those named are of these three.
    assert named <= {best, worst, moved}
    assert len(named) >= 2


@pytest.mark.parametrize("layout", ["wide", "narrow"])
@pytest.mark.parametrize(("count", "has_upper"), [(20, False), (40, True)])
def test_a_tall_forest_has_its_axis_above_too(layout: str, count: int, has_upper: bool) -> None:
    table, ate = many_rows(count)
    figure = draw_forest(table, ate, dimensions=["place"], layout=layout)  # type: ignore[arg-type]
    (bars,) = figure.axes[0].child_axes
    assert bars.xaxis.get_tick_params()["labeltop"] is has_upper if has_upper else True
    assert bool(bars.xaxis.get_tick_params().get("labeltop")) is has_upper


NAMES = ["東京", "القاهرة", "मुंबई", "😀 smile", "Köln"]


@pytest.mark.parametrize("view", ["plot_forest", "plot_shrinkage"])
def test_names_of_any_script_are_drawn_or_warned_of_once(view: str) -> None:
    figure = getattr(example_fit(NAMES), view)()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.canvas.draw()
        figure.canvas.draw()
    messages = [str(warning.message) for warning in caught]
    assert len(messages) <= 1
    assert all(re.match(r"no installed font has the characters '.*' of some names", message) for message in messages)


def test_an_svg_of_names_of_any_script_keeps_them_as_text_and_warns_of_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = hte.plot.save(example_fit(NAMES).plot_forest(), tmp_path / "forest.svg")
    assert all(name in path.read_text(encoding="utf-8") for name in NAMES)
    assert mpl.rcParams["svg.fonttype"] == "path"
