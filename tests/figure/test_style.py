"""What the figures share."""

import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from helpers import results_row, results_table
from matplotlib import pyplot as plt

import lrp
from lrp.figure import accuracy, panels, style
from lrp.figure.known import FIGURES
from lrp.figure.palette import Look

PACKAGE = Path(lrp.__file__).parent
SCRIPTS = PACKAGE.parent / "experiments"


def test_pyplot_is_left_alone():
    """lrp draws into files: it chooses no backend and keeps no figure open, so that a notebook shows what its own cells draw."""
    assert not [
        file.name for file in PACKAGE.rglob("*.py") if re.search(r"import pyplot|matplotlib\.pyplot|matplotlib\.use", file.read_text())
    ]
    plt.close("all")
    style.grid(1, 1, 4, 3)
    assert not plt.get_fignums()


def test_figures_are_made_in_one_place():
    """Nobody else opens or writes a figure, or takes colours of matplotlib's own."""
    files = [file for file in [*(PACKAGE / "figure").glob("*.py"), *SCRIPTS.glob("*.py")] if file.name != "style.py"]
    found = [file.name for file in files if re.search(r"plt\.|\.savefig|pyplot|\"C\d|tab\d\d", file.read_text())]
    assert len(files) > 20 and not found


def test_figures_live_in_the_package():
    """They work from a wheel: the sheet is part of it, and nothing is imported from experiments/."""
    assert style.SHEET.is_file() and not re.search(r"^(from|import) experiments", "".join(map(Path.read_text, PACKAGE.rglob("*.py"))), re.M)
    data = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert style.SHEET.name in data["lrp.figure"]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_in_the_style(name):
    """Its own function or one that it calls."""
    styled = [panels.small_multiples, *vars(inspect.getmodule(FIGURES[name].draw)).values()]
    styled = {function.__name__ for function in styled if getattr(function, "__wrapped__", None) is not None}
    draw = inspect.getsource(FIGURES[name].draw)
    draws = FIGURES[name].draw.__name__ in styled or any(f"{each}(" in draw for each in styled)
    assert draws or "draw_figure3(" in draw and "small_multiples(" in inspect.getsource(accuracy.draw_figure3)


def test_the_style_of_others_stays(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(panels, "save_figure", lambda figure, target: seen.append(plt.rcParams["font.size"]) or [])
    with plt.rc_context({"font.size": 23}):
        accuracy.draw_figure3(results_table(results_row()), tmp_path / "x")
        assert plt.rcParams["font.size"] == 23
    assert seen == [8]


def test_removed_shares_and_accuracies_have_their_ticks():
    """What is left halves from step to step, and errors do: 90 to 99 % are as far apart as 0 to 90 %."""
    figure, axes = style.grid(1, 1, 4, 3)
    ax = axes[0][0]
    style.removed_axis(ax, [0.0, 0.99], "removed (%)")
    style.accuracy_axis(ax, [10, 90])
    x = ax.transData.transform([(0, 50), (0.9, 50), (0.99, 50)])[:, 0]
    assert x[2] - x[1] == pytest.approx(x[1] - x[0])
    y = ax.transData.transform([(0, 60), (0, 80), (0, 90)])[:, 1]
    assert y[2] - y[1] == pytest.approx(y[1] - y[0])
    assert {0, 0.9, 0.99} <= {*ax.get_xticks()} and {50, 80, 90} <= {*ax.get_yticks()}


@pytest.mark.parametrize("wanted", [[10, 10, 10], [0, 50, 99], [98, 99, 99], [0, 0, 99]])
def test_names_stand_apart(wanted):
    found = style.spaced(wanted, 8, 2, 98)
    assert all(b - a >= 8 - 1e-9 for a, b in zip(found, found[1:])) and min(found) >= 2 and max(found) <= 98


def test_names_do_not_overlap():
    """Beside lines that coincide, and in the lines' order where they do not."""
    figure, axes = style.grid(1, 1, 4, 3)
    x, ends = [0, 1], (50, 50, 50, 80)
    style.accuracy_axis(axes[0][0], ends)
    style.name_lines(axes[0][0], [(f"line {i}", Look("#000000"), x, [end, end]) for i, end in enumerate(ends)])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes[0][0].texts]
    assert len(boxes) == 4 and all(a.y0 >= b.y1 or b.y0 >= a.y1 for i, a in enumerate(boxes) for b in boxes[:i])
    assert np.argmax([box.y0 for box in boxes]) == [text.get_text() for text in axes[0][0].texts].index("line 3")
