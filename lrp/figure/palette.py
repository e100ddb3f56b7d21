"""Which colour, marker and stroke a thing has: the same in every figure, and told apart without colour as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

# Okabe and Ito's colours, which colour-blind readers tell apart (without their yellow, which is too light for a line), and a violet.
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
VIOLET, GREY, BLACK = "#8c6bb1", "#666666", "#000000"
BROWN = "#7f5539"
INK = "#333333"  # of what stands for a line of any colour
COLOURS = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, VIOLET, GREY)
MARKERS = "os^DvPX*<>"
STROKES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1)))


@dataclass(frozen=True)
class Look:
    """How a thing is drawn.

    Attributes:
        colour: Of its line, its band and its name.
        marker: Of its points.
        stroke: Of its line, as matplotlib takes it.
        hollow: Whether its points are hollow, so that those below them can be seen.
    """

    colour: str
    marker: str = "o"
    stroke: Any = "-"
    hollow: bool = False


# By the names in tables. What a figure shows beside each other differs in colour, and in marker or stroke too.
KNOWN = {
    "perturbation": Look(BLUE, "o", STROKES[0]),
    "perturbation, softmax": Look(SKY, "s", STROKES[1]),
    "variance": Look(ORANGE, "s", STROKES[1]),
    "magnitude": Look(GREEN, "^", STROKES[3]),
    "relative_error": Look(PINK, "D", STROKES[2]),
    "lamp": Look(BLACK, "v", STROKES[1]),
    "snip": Look(VERMILION, "P", STROKES[2]),
    "grasp": Look(VIOLET, "X", STROKES[2]),
    "curvature": Look(BROWN, "*", STROKES[4]),
    "random": Look(GREY, "<", STROKES[2]),
    "output_aware": Look(VERMILION, "o", STROKES[0]),
    "forms": Look(BLUE, "s", STROKES[0]),
    "balf": Look(GREEN, "^", STROKES[1]),
    "alds": Look(VIOLET, "D", STROKES[3]),
    "svd_energy": Look(PINK, "v", STROKES[2]),
    "pca": Look(ORANGE, "P", STROKES[1]),
    "svd_uniform": Look(SKY, "X", STROKES[4]),
    "hosvd": Look(ORANGE, "X", STROKES[4]),
    "input_tucker": Look(SKY, "P", STROKES[1]),
    "none": Look(BLUE, "o", STROKES[0]),
    "square": Look(ORANGE, "s", STROKES[1]),
    "reference": Look(BLACK, "X", STROKES[1]),
}


def look(thing: str) -> Look:
    """How a thing is drawn: as it is known, and otherwise by a hash of its name, which is the same in every figure and run."""
    at = crc32(thing.encode())
    return KNOWN.get(thing, Look(COLOURS[at % len(COLOURS)], MARKERS[at // 8 % len(MARKERS)], STROKES[at // 80 % len(STROKES)]))


def looks(things: Sequence[str]) -> list[Look]:
    """The look of each of these lines of one panel: the colour of its thing, and a pair of marker and stroke of its own; every
    second one has hollow points.

    Lines of one thing have one colour and differ in marker and stroke; so do things whose hashes meet.
    """
    found: list[Look] = []
    pairs = [(marker, stroke) for stroke in STROKES for marker in MARKERS]
    for thing in things:
        own = look(thing)
        if any((each.marker, each.stroke) == (own.marker, own.stroke) for each in found):
            strokes, markers = {each.stroke for each in found}, {each.marker for each in found}
            free = [pair for pair in pairs if pair not in {(each.marker, each.stroke) for each in found}] or pairs
            free.sort(key=lambda pair: (pair[0] in markers, pair[1] in strokes))
            own = replace(own, marker=free[0][0], stroke=free[0][1])
        found.append(replace(own, hollow=len(found) % 2 == 1))
    return found
