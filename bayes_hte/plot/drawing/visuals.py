"""Marks that a caller restyles or leaves out, by name.

Every artist of a figure carries the name of its mark as `gid`. A mark in the key of a figure carries it with a prefix,
so that it follows the mark that it explains and is not mistaken for data.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.markers import MarkerStyle
from matplotlib.text import Text

from bayes_hte._support.validation import describe_value
from bayes_hte.errors import ArgumentError

Visuals = Mapping[str, Mapping[str, Any] | bool]
"""By name of a mark: properties of its matplotlib artists, False to leave it out, True for the default."""
KEY_PREFIX = "key_"
KEY_TEXT_MARK = "key"
"""Name by which the texts of the key are restyled, whichever mark they explain."""


def require_known_visuals(visuals: Visuals | None, mark_names: Sequence[str]) -> Visuals:
    """Require that only marks of the figure are named, each with properties or a truth value.

    Parameters
    ----------
    visuals : mapping, optional
        As the caller gave it.
    mark_names : sequence of str
        Marks of the figure.

    Returns
    -------
    mapping
        `visuals`, or an empty one.

    Raises
    ------
    ArgumentError
        If a mark is unknown, or what is said about one is neither a mapping nor True or False.

    Examples
    --------
    >>> require_known_visuals({"points": False}, ["interval", "point"])
    Traceback (most recent call last):
    bayes_hte.errors.ArgumentError: no mark 'points'; there are interval, point
    """
    if visuals is None:
        return {}
    if not isinstance(visuals, Mapping):
        raise ArgumentError(f"visuals must map names of marks to properties, not be {describe_value(visuals)}")
    for mark_name, properties in visuals.items():
        if mark_name not in mark_names:
            raise ArgumentError(f"no mark {describe_value(mark_name)}; there are {', '.join(mark_names)}")
        if not isinstance(properties, Mapping | bool):
            raise ArgumentError(
                f"visuals[{mark_name!r}] must be properties such as {{'color': 'black'}}, or False to leave the mark "
                f"out, not {describe_value(properties)}"
            )
    return visuals


def restyle_marks(axes: Axes, visuals: Visuals) -> None:
    """Give the marks on an axes and its insets the caller's properties, and remove those left out.

    Raises
    ------
    ArgumentError
        If an artist has no such property, or refuses the value.
    """
    if not visuals:
        return
    for artist in axes.findobj(lambda artist: bool(artist.get_gid())):
        gid = str(artist.get_gid())
        mark_name = gid.removeprefix(KEY_PREFIX)
        explains_mark = gid != mark_name and isinstance(artist, Text)
        if visuals.get(mark_name) is False or (explains_mark and visuals.get(KEY_TEXT_MARK) is False):
            artist.remove()
            continue
        # Words in the key go with their mark when it is left out, but do not take its properties.
        properties = visuals.get(KEY_TEXT_MARK if explains_mark else mark_name)
        if isinstance(properties, Mapping):
            _set_properties(artist, mark_name, properties)


def _set_properties(artist: Artist, mark_name: str, properties: Mapping[str, Any]) -> None:
    own_properties = dict(properties)
    try:
        # Points of a scatter hold shapes, not the name of one: `set` would not know it.
        if isinstance(artist, PathCollection) and "marker" in own_properties:
            marker_style = MarkerStyle(own_properties.pop("marker"))
            artist.set_paths([marker_style.get_path().transformed(marker_style.get_transform())])
        artist.set(**own_properties)
    except (AttributeError, TypeError, ValueError) as error:
        raise ArgumentError(f"visuals[{mark_name!r}]: {error}") from error
