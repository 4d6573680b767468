"""Every mark of a figure has a name, by which it is found, restyled or left out."""

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.collections import Collection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from bayes_hte.errors import ArgumentError
from bayes_hte.plot import ArmBelief, Theme, forest, prior, shrinkage, svg, trace
from bayes_hte.plot.forest.figure import FOREST_MARKS
from bayes_hte.plot.prior import PRIOR_MARKS
from bayes_hte.plot.shrinkage import SHRINKAGE_MARKS
from bayes_hte.plot.tau_trace import TAU_TRACE_MARKS

WORDS = {"title": "a title", "caption": "a caption"}


def effect_rows(count: int = 6) -> pd.DataFrame:
    """Segments in two arms, the first so wild in both its intervals that arrows show where they leave the axis."""
    rng = np.random.default_rng(5)
    effects = np.array([0.4, *rng.normal(0.1, 0.05, count - 1)])
    half_widths = np.array([30.0, *np.full(count - 1, 0.04)])
    rows = pd.DataFrame(
        {
            "region": [f"region {index % 2}" for index in range(count)],
            "branch": [f"branch {index}" for index in range(count)],
            "n_control": 100.0,
            "n_treated": 90.0 + np.arange(count),
            "raw": [40.0, *(1.2 * effects[1:])],
            "raw_se": half_widths,
            "effect": effects,
            "ci_low": effects - half_widths,
            "ci_high": effects + half_widths,
            "p_positive": 0.9,
        }
    )
    return pd.concat([rows.assign(arm="a"), rows.assign(arm="b")], ignore_index=True)


def average_rows() -> pd.DataFrame:
    numbers = {"effect": 0.1, "ci_low": 0.05, "ci_high": 0.15, "p_positive": 0.99, "n_control": 9.0, "n_treated": 9.0}
    return pd.DataFrame([{"arm": arm, **numbers} for arm in "ab"])


def draw_forest(**options: object) -> Figure:
    return forest(effect_rows(), average_rows(), dimensions=["region", "branch"], **(WORDS | options))


def draw_narrow_forest(**options: object) -> Figure:
    return draw_forest(layout="narrow", **options)


def draw_shrinkage(**options: object) -> Figure:
    return shrinkage(effect_rows(), average_rows(), dimensions=["region", "branch"], **(WORDS | options))


def draw_tau_trace(**options: object) -> Figure:
    tau = np.array([0.0, 1.0, 2.0])
    # Curves of all kinds: two named and two unnamed ones, of which one each changes sign.
    ends = {"up": 9.0, "down": -8.0, "still": 2.0, "turning": -3.0}
    table = pd.concat(
        [
            pd.DataFrame({"segment": name, "arm": arm, "tau": tau, "effect": np.linspace(1.0, end, 3)})
            for arm in "ab"
            for name, end in ends.items()
        ]
    )
    density = pd.concat([pd.DataFrame({"arm": arm, "tau": tau, "density": [1.0, 1.0, 0.0]}) for arm in "ab"])
    return trace(table, density, dimensions=["segment"], **(WORDS | {"labels": 2} | options))


def draw_prior(**options: object) -> Figure:
    draws = np.random.default_rng(2).normal(size=500)
    return prior([ArmBelief("a", draws, draws / 3, np.array([0.2]))], title="a title", **options)


FIGURES: dict[str, tuple[Callable[..., Figure], tuple[str, ...]]] = {
    "forest": (draw_forest, FOREST_MARKS),
    "shrinkage": (draw_shrinkage, SHRINKAGE_MARKS),
    "tau trace": (draw_tau_trace, TAU_TRACE_MARKS),
    "prior": (draw_prior, PRIOR_MARKS),
}
every_figure = pytest.mark.parametrize(("draw", "mark_names"), FIGURES.values(), ids=FIGURES.keys())


def list_drawn(figure: Figure) -> list[Artist]:
    """Everything that shows, without the axes' own frames, ticks and empty titles."""
    frames = {
        id(part) for axes in figure.findobj(lambda artist: hasattr(artist, "spines")) for part in _list_frame(axes)
    }
    kinds = (Text, Line2D, Collection, Patch)
    return [
        artist
        for artist in figure.findobj()
        if isinstance(artist, kinds) and id(artist) not in frames and artist is not figure.patch
    ]


def _list_frame(axes: Artist) -> list[Artist]:
    parts = [axes.patch, axes.title, axes._left_title, axes._right_title, *axes.spines.values()]
    return [*parts, *(part for axis in axes.findobj(Axis) for part in axis.findobj())]


def list_marks(figure: Figure, mark_name: str) -> list[Artist]:
    return [artist for artist in figure.findobj() if artist.get_gid() == mark_name]


@every_figure
def test_every_artist_carries_the_name_of_a_mark_and_every_mark_is_drawn(draw, mark_names) -> None:
    found = {str(artist.get_gid()) for artist in list_drawn(draw())}
    assert {name.removeprefix("key_") for name in found} | {"key"} == set(mark_names)


def test_the_narrow_forest_has_marks_of_the_same_names() -> None:
    assert {str(artist.get_gid()).removeprefix("key_") for artist in list_drawn(draw_narrow_forest())} <= set(
        FOREST_MARKS
    )


@every_figure
def test_each_mark_can_be_left_out_alone(draw, mark_names) -> None:
    before = {artist.get_gid() for artist in list_drawn(draw())}
    for mark_name in mark_names:
        after = {artist.get_gid() for artist in list_drawn(draw(visuals={mark_name: False}))}
        assert mark_name not in after
        assert {name.removeprefix("key_") for name in before - after} <= {mark_name} or mark_name == "key"


@every_figure
def test_each_mark_can_be_recoloured_alone(draw, mark_names) -> None:
    for mark_name in mark_names:
        figure = draw(visuals={mark_name: {"alpha": 0.25}})
        for artist in list_drawn(figure):
            if artist.get_gid() == mark_name:
                assert artist.get_alpha() == 0.25
            elif str(artist.get_gid()).removeprefix("key_") != mark_name and mark_name != "key":
                assert artist.get_alpha() != 0.25


def test_the_key_follows_the_mark_that_it_explains() -> None:
    figure = draw_shrinkage(visuals={"raw_point": {"facecolor": "gold"}})
    marks = [artist for artist in list_marks(figure, "key_raw_point") if isinstance(artist, PathCollection)]
    assert [tuple(mark.get_facecolor()[0]) for mark in marks] == [to_rgba("gold")]
    without = draw_shrinkage(visuals={"raw_point": False})
    assert "raw, not pooled" not in {text.get_text() for text in without.findobj(Text)}


def test_a_point_takes_another_marker() -> None:
    (round_points, *_) = list_marks(draw_forest(visuals={"point": {"marker": "o"}}), "point")
    (square_points, *_) = list_marks(draw_forest(), "point")
    assert len(round_points.get_paths()[0].vertices) > len(square_points.get_paths()[0].vertices)


@every_figure
@pytest.mark.parametrize(
    ("visuals", "message"),
    [
        ({"points": False}, "no mark 'points'; there are title, "),
        ({"title": 3}, r"visuals\['title'\] must be properties such as"),
        ({"title": {"colour": "red"}}, r"visuals\['title'\]: .*colour"),
        ({"title": {"color": "no such colour"}}, r"visuals\['title'\]: .*no such colour"),
        (["title"], "visuals must map names of marks to properties"),
    ],
)
def test_what_visuals_cannot_mean_is_refused(draw, mark_names, visuals, message) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        draw(visuals=visuals)
    if visuals == {"points": False}:
        assert str(caught.value).endswith(", ".join(mark_names))


@every_figure
def test_ids_of_an_svg_are_unique_although_many_artists_are_one_mark(draw, mark_names) -> None:
    nodes = ET.fromstring(svg(draw(), description="", prefix="x")).iter()  # noqa: S314 - our own text
    ids = [node.get("id") for node in nodes if node.get("id")]
    assert len(set(ids)) == len(ids)
    assert "x-title" in ids


def test_a_theme_replaces_every_colour_of_every_figure() -> None:
    names = [field.name for field in dataclasses.fields(Theme)]
    theme = Theme(**{name: f"#{index:02x}ff{index:02x}" for index, name in enumerate(names, 1)})
    found: set[str] = set()
    for draw in (draw_forest, draw_narrow_forest, draw_shrinkage, draw_tau_trace, draw_prior):
        found |= set(re.findall("#[0-9a-f]{6}", svg(draw(theme=theme), description="")))
    assert found == set(dataclasses.astuple(theme))


@every_figure
def test_a_theme_is_a_value_and_no_name(draw, mark_names) -> None:
    with pytest.raises(ArgumentError, match=r"theme must be a bayes_hte.plot.Theme, not 'dark'"):
        draw(theme="dark")
