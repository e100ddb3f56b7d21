"""What the figures share: the style sheet, scales, lines that stay visible below each other, names beside them, files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure as MplFigure

from lrp.errors import InputError
from lrp.figure.palette import Look
from lrp.files import write_text, write_whole
from lrp.results.labels import distinct

SHEET = Path(__file__).with_name("paper.mplstyle")
P = ParamSpec("P")
T = TypeVar("T")

COLUMN, PAGE = 3.4, 7.0  # inches: one column of a paper, and both
TEXT = 7.0  # points: names of lines
LEAST_ERROR = 0.02  # points of accuracy: what is nearer to 100 % is drawn there
LEAST_LEFT = 2.0**-12  # share that is left: less is drawn there
REMOVED = (0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
FINE = (0, 10, 20, 30, 40, 50, 60, 65, 70, 75, 78, 80, 82, 84, 86, 88, 90, 91, 92, 93, 94, 95, 96, 97, 98, 98.5, 99, 99.5, 99.9)
ACCURACIES = (0, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 99.5, 99.9)


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """A function that draws, in the style of the package; what a user set for other figures stays as it is."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> T:
        with style.context(SHEET):
            return draw(*args, **options)

    return drawn


def grid(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[MplFigure, np.ndarray]:
    """A figure of this size (inches) with its axes, (rows, columns).

    It is not one of pyplot's: no backend is chosen, so that no display is needed, and a notebook goes on showing what its own cells draw.
    """
    figure = MplFigure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


# scales


def removed_axis(ax: Axes, shares: Sequence[float], label: str) -> None:
    """Make x a share that is removed: one step to the right halves what is left, where much is removed; otherwise it is linear."""
    most = max([*shares, 0.0])
    if most > 0.6:
        ax.set_xscale("function", functions=(_halvings, lambda place: 1 - 2.0 ** -np.asarray(place, float)))
    low, high = _halvings(min([*shares, most])), _halvings(most)
    margin = 0.04 * max(float(high - low), 0.05)
    ax.set_xlim(float(1 - 2.0 ** -(low - margin)), float(1 - 2.0 ** -(high + margin)))
    wanted = [share for share in REMOVED if low - margin <= _halvings(share) <= high + margin]
    if len(wanted) < 2:
        wanted = sorted(set(shares))[:8]
    figure = ax.get_figure(root=True)
    assert figure is not None
    gap = 14 / (72 * ax.get_position().width * figure.get_figwidth())  # points that a number takes
    places = _halvings(wanted) if most > 0.6 else np.asarray(wanted)
    ax.set_xticks(_apart(wanted, places, gap), minor=False)
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}")
    ax.set_xlabel(label)


def _halvings(share: Any) -> np.ndarray:
    return -np.log2(np.maximum(1 - np.asarray(share, float), LEAST_LEFT))


def accuracy_axis(ax: Axes, values: Sequence[float], label: str | None = None, linear: bool = False) -> None:
    """Make y an accuracy in per cent, its room divided by the error that is left: 80 to 90 % takes as much as 60 to 80 %.

    Where all values lie close together, or with ``linear``, it is linear.
    """
    known = [float(value) for value in values if value == value]
    low, high = (min(known), max(known)) if known else (0.0, 100.0)
    wide = high - low > 15 and high > 70 and not linear
    if wide:
        ax.set_yscale("function", functions=(_closeness, lambda place: 100 - np.exp(-np.asarray(place, float))))
        span = float(_closeness(high) - _closeness(low))
        bottom, top = (100 - np.exp(-(float(_closeness(edge)) + part * span)) for edge, part in ((low, -0.03), (high, 0.08)))
        ticks = np.array([tick for tick in (FINE if span < 1.2 else ACCURACIES) if bottom <= tick <= top])
        ax.set_yticks(_apart(ticks, _closeness(ticks), 0.075, span * 1.11))
        ax.set_yticks([], minor=True)
        ax.yaxis.set_major_formatter("{x:g}")
    else:
        margin = max(high - low, 0.5)
        bottom, top = low - 0.06 * margin, high + 0.1 * margin
    ax.set_ylim(bottom, top)
    if label is not None:
        ax.set_ylabel(label)


def _closeness(percent: Any) -> np.ndarray:
    return -np.log(np.maximum(100 - np.asarray(percent, float), LEAST_ERROR))


def _apart(wanted: Sequence[float] | np.ndarray, places: np.ndarray, gap: float, span: float | None = None) -> list[float]:
    """Of these ticks those that stand this share of the axis apart, from the last one down."""
    span = span or max(float(np.ptp(places)), 1e-9)
    kept: list[int] = []
    for i in reversed(range(len(places))):
        if not kept or places[kept[-1]] - places[i] >= gap * span:
            kept.append(i)
    return [float(wanted[i]) for i in reversed(kept)]


# lines


def curve(ax: Axes, x: Any, y: Any, look: Look, depth: float = 0.0, **options: Any) -> None:
    """A line that can be seen where another covers it: the first drawn is the broadest, those above it are narrower and have gaps.

    ``depth``: 0 for the first of a panel, 1 for the last.
    """
    ax.plot(
        x, y, color=look.colour, linestyle=look.stroke, marker=look.marker, zorder=2.5 + depth, linewidth=2.4 - 1.3 * depth,
        markersize=4.8 - 1.4 * depth, markeredgewidth=0.8, markerfacecolor="none" if look.hollow else look.colour, **options,
    )  # fmt: skip


def band(ax: Axes, x: pd.Series, mean: pd.Series, spread: pd.Series, colour: str) -> None:
    """One standard deviation on both sides of a line, shares as percent."""
    spread = spread.fillna(0)
    ax.fill_between(x, 100 * (mean - spread), 100 * (mean + spread), color=colour, alpha=0.18, linewidth=0)


def level(ax: Axes, height: float, name: str, right: bool = False, colour: str = "#666666") -> None:
    """A dotted line at a height, with its name above it."""
    ax.axhline(height, color=colour, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1.5)
    place = {"xy": (1 if right else 0, height), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    ax.annotate(name, xytext=(-2 if right else 2, 1.5), fontsize=6.5, color=colour, ha="right" if right else "left", **place)


def name_lines(ax: Axes, lines: Sequence[tuple[str, Look, Any, Any]], room: bool = True) -> None:
    """Write the name of each line (name, look, x, y) right of the panel, beside a sample of it, in the lines' order where they are
    furthest apart. Scales and limits have to be set before. ``room``: whether the figure is to make room; False: there is some."""
    if not lines:
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the size of the panel
    box = ax.get_window_extent()
    width, height = 72 * box.width / figure.dpi, 72 * box.height / figure.dpi  # points
    to_axes = ax.transAxes.inverted()
    drawn = []
    for _, _, x, y in lines:
        places = to_axes.transform(ax.transData.transform(np.column_stack([np.asarray(x, float), np.asarray(y, float)])))
        places = np.clip(places[np.argsort(places[:, 0])], 0, 1)
        drawn.append(places[~np.isnan(places).any(axis=1)])
    gap = TEXT * 1.25 * max(name.count("\n") + 1 for name, *_ in lines) / height
    wanted = _heights(drawn, gap)
    order = sorted(range(len(lines)), key=lambda i: (wanted[i], [float(each) for each in drawn[i][::-1, 1]], -i))
    for i, at in zip(order, spaced([wanted[i] for i in order], gap, 0.5 * gap, 1 - 0.5 * gap)):
        name, look, _, _ = lines[i]
        start, end = 1 + 5 / width, 1 + 21 / width
        sample = {"transform": ax.transAxes, "clip_on": False, "color": look.colour}
        ax.plot([start, end], [at, at], linestyle=look.stroke, linewidth=1.3, **sample)
        ax.plot(
            [(start + end) / 2],
            [at],
            marker=look.marker,
            markersize=3.8,
            linestyle="",
            markerfacecolor="none" if look.hollow else look.colour,
            **sample,
        )
        place = {"xy": (end, at), "xycoords": "axes fraction", "xytext": (3, 0), "textcoords": "offset points"}
        text = ax.annotate(name, fontsize=TEXT, color=look.colour, va="center", annotation_clip=False, **place)
        text.set(in_layout=room, linespacing=1.0)


def _heights(drawn: Sequence[np.ndarray], gap: float) -> list[float]:
    """The height of each line (its points, shares of the axes) where the lines are furthest apart, the right end where that is level."""
    best, found = -1.0, [float(points[-1, 1]) if len(points) else 0.5 for points in drawn]
    for x in np.linspace(1, 0, 41):
        heights = [float(np.interp(x, points[:, 0], points[:, 1])) if len(points) else 0.5 for points in drawn]
        apart = float(np.minimum(np.diff(np.sort(heights)), gap).sum()) if len(heights) > 1 else 0.0
        if apart > best + 0.15 * gap:
            best, found = apart, heights
    return found


def spaced(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights in the order of ``wanted``, rising, near to them, at least ``gap`` apart and within ``low`` and ``high`` where they fit."""
    found: list[float] = []
    for value in wanted:
        found.append(max(value, low, found[-1] + gap if found else low))
    for i in reversed(range(len(found))):
        found[i] = min(found[i], high if i == len(found) - 1 else found[i + 1] - gap)
    return found


def heat_map(ax: Axes, values: np.ndarray, rows: list, columns: list, low: float, high: float, digits: int = 1) -> None:
    """A heat map of accuracies (%) with their numbers, its colours divided by the error that is left; what is missing stays empty."""
    norm = FuncNorm((_closeness, lambda place: 100 - np.exp(-np.asarray(place, float))), low, max(high, low + 1e-9))
    ax.imshow(values, norm=norm, aspect="auto")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.grid(False)
    for (i, j), value in np.ndenumerate(values):
        if value == value:
            shade = "black" if norm(value) > 0.5 else "white"
            ax.text(j, i, f"{value:.{digits}f}", ha="center", va="center", fontsize=6.5, color=shade)


# tables and files


def one_setting(table: pd.DataFrame, keys: list[str], measured: list[str]) -> pd.DataFrame:
    """The rows of one setting, each cell and seed once (the last).

    Raises:
        InputError: Where rows differ in anything else.
    """
    settings = [name for name in table if name not in [*keys, *measured, "seed", "folder"]]
    differing = [name for name in settings if distinct(table[name]) > 1]
    if differing:
        raise InputError(f"the tables mix settings ({', '.join(differing)} differ): draw one setting at a time")
    return table.drop_duplicates(subset=[*keys, "seed"], keep="last")


def stem_of(target: Path) -> Path:
    """Where a figure goes, without the suffix of a picture."""
    return target.with_suffix("") if target.suffix in (".png", ".pdf") else target


def save_figure(figure: MplFigure, target: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside ``target``, whose own suffix does not count; both paths."""
    stem = stem_of(target)
    paths = [stem.parent / f"{stem.name}{suffix}" for suffix in (".png", ".pdf")]
    for path in paths:
        write_whole(path, lambda file: figure.savefig(file))
    return paths


def write_tables(target: Path, markdown: str, cells: pd.DataFrame | None = None) -> list[Path]:
    """A figure's table beside it: as Markdown, and as .csv where ``cells`` are given; the paths."""
    paths = []
    if cells is not None:
        paths.append(target.parent / f"{target.name}_table.csv")
        write_whole(paths[0], lambda path: cells.to_csv(path, index=False))
    paths.append(target.parent / f"{target.name}_table.md")
    write_text(paths[-1], markdown)
    return paths
