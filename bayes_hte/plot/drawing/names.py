"""Place names beside the marks of a panel where no line, mark or other name runs through them."""

from collections.abc import Sequence
from dataclasses import dataclass

from bayes_hte.plot.drawing.canvas import TextAlignment
from bayes_hte.plot.drawing.text import measure_width

DesignBox = tuple[float, float, float, float]
"""Left, top, width, height in design points."""
_MARK_RADIUS = 5.0  # rings and triangles, with a little air
_NAME_GAP = 7.0  # from the middle of a mark to the name beside it
_LINE_HEIGHT = 1.15


@dataclass(frozen=True, slots=True)
class Move:
    """An arrow in design points: where it stands, and the heights of its ring and of its tip."""

    x: float
    y_raw: float
    y_pooled: float


@dataclass(frozen=True, slots=True)
class PlacedName:
    """A name, the point that it is written at, and how it is aligned there."""

    text: str
    x: float
    y: float
    align: TextAlignment


def place_names(
    named_moves: Sequence[tuple[str, Move]],
    all_moves: Sequence[Move],
    guide_heights: Sequence[float],
    panel_box: DesignBox,
    font_size: float,
) -> list[PlacedName]:
    """Place each name beside its ring or its tip; one that has no free place there is left out.

    Parameters
    ----------
    named_moves : sequence of pairs
        Names and their arrows, the most important first.
    all_moves : sequence of Move
        Every arrow of the panel.
    guide_heights : sequence of float
        Heights of horizontal lines that run through the panel.
    panel_box : tuple of float
    font_size : float
    """
    taken_boxes: list[DesignBox] = []
    placed_names: list[PlacedName] = []
    for name, move in named_moves:
        for name_box, align in _list_boxes(measure_width(name, font_size), _LINE_HEIGHT * font_size, move):
            if not _is_free(name_box, panel_box, taken_boxes, all_moves, guide_heights):
                continue
            left, top, width, height = name_box
            taken_boxes.append(name_box)
            x_anchor = {"left": left, "center": left + width / 2, "right": left + width}[align]
            placed_names.append(PlacedName(name, x_anchor, top + height / 2, align))
            break
    return placed_names


def _list_boxes(width: float, height: float, move: Move) -> list[tuple[DesignBox, TextAlignment]]:
    """List the boxes where a name may stand, the best first: beside the ring, beside the tip, above and below."""
    boxes: list[tuple[DesignBox, TextAlignment]] = []
    for rise in (0.0, 0.5, -0.5, 0.9, -0.9):
        for y in (move.y_raw, move.y_pooled):
            top = y - height / 2 + rise * height
            boxes += [
                ((move.x + _NAME_GAP, top, width, height), "left"),
                ((move.x - _NAME_GAP - width, top, width, height), "right"),
            ]
    upper, lower = min(move.y_raw, move.y_pooled), max(move.y_raw, move.y_pooled)
    above, below = upper - _MARK_RADIUS - height - 1, lower + _MARK_RADIUS + 1
    for shift, align in ((-width / 2, "center"), (-4.0, "left"), (4.0 - width, "right")):
        boxes += [((move.x + shift, top, width, height), align) for top in (above, below)]  # type: ignore[misc]
    return boxes


def _is_free(
    name_box: DesignBox,
    panel_box: DesignBox,
    taken_boxes: Sequence[DesignBox],
    moves: Sequence[Move],
    guide_heights: Sequence[float],
) -> bool:
    left, top, width, height = name_box
    right, bottom = left + width, top + height
    is_inside = (
        left >= panel_box[0]
        and right <= panel_box[0] + panel_box[2]
        and panel_box[1] <= top
        and bottom <= panel_box[1] + panel_box[3]
    )
    # Letters fill the middle of their line: a line at its very edge does not touch them.
    margin = 0.12 * height
    is_crossed = any(top + margin < y < bottom - margin for y in guide_heights)
    if not is_inside or is_crossed or any(_overlap(name_box, taken_box) for taken_box in taken_boxes):
        return False
    return not any(
        left - _MARK_RADIUS < move.x < right + _MARK_RADIUS
        and min(move.y_raw, move.y_pooled) - _MARK_RADIUS < bottom
        and top < max(move.y_raw, move.y_pooled) + _MARK_RADIUS
        for move in moves
    )


def _overlap(first_box: DesignBox, second_box: DesignBox) -> bool:
    return (
        first_box[0] < second_box[0] + second_box[2]
        and second_box[0] < first_box[0] + first_box[2]
        and first_box[1] < second_box[1] + second_box[3]
        and second_box[1] < first_box[1] + first_box[3]
    )
