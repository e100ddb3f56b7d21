"""Colours, markers and strokes: the same for a thing everywhere, and different in one panel."""

import pytest

from lrp.config.paths import CONF
from lrp.figure.palette import KNOWN, look, looks

SCORERS = sorted(file.stem for file in (CONF / "scorer").glob("*.yaml"))
METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))


@pytest.mark.parametrize(
    "things", [SCORERS, METHODS, ["variance"] * 9, ["perturbation", "variance"]], ids=["scorers", "methods", "one", "two"]
)
def test_lines_of_a_panel_differ_without_colour(things):
    """Curves that coincide can both be seen: no two have marker and stroke alike, and neighbours differ in hollow points."""
    found = looks(things)
    assert len({(each.marker, each.stroke) for each in found}) == len(things)
    assert all(a.hollow != b.hollow for a, b in zip(found, found[1:]))


def test_a_thing_has_one_colour_everywhere():
    for things in (SCORERS, SCORERS[::-1], [*METHODS, *SCORERS]):
        assert all(own.colour == look(thing).colour for thing, own in zip(things, looks(things)))
    assert look("my_own_scorer") == look("my_own_scorer")


def test_known_things_of_one_figure_differ_in_colour():
    compared = ["perturbation", "variance", "magnitude", "relative_error", "lamp", "snip", "grasp", "curvature", "random"]
    assert len({KNOWN[name].colour for name in compared}) == len(compared)
