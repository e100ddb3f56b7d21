"""How much faster compressed networks are, beside the ratio of MACs, from the tables of experiments/benchmark_speed.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lrp.figure.base import Figure
from lrp.figure.palette import BLUE, GREEN, GREY, VERMILION, Look, look
from lrp.figure.style import COLUMN, PAGE, curve, grid, level, name_lines, save_figure, styled
from lrp.results.collect import collect_tables
from lrp.results.labels import BLOCKINGS, named

_TIMED = ("network", "device", "threads", "batch", "macs_ratio", "speedup")
_BOUND = ("Amdahl's bound", Look(GREY, "", (0, (4, 1.6))))
_RATIO = ("the ratio of MACs", Look(GREY, "", "-"))
_RANKS = {"ranks as pruned": Look(BLUE, "o", "-"), "ranks in multiples of 8": Look(VERMILION, "s", (0, (4, 1.6)), True)}
_LAYERS = (Look(BLUE, "o", "-"), Look(VERMILION, "s", (0, (4, 1.6)), True), Look(GREEN, "^", (0, (1.2, 1.2))))


def _ratios(ax: Axes, most: float, least: float = 1.0, ticks: Sequence[float] = (0.5, 1, 2, 4, 8, 16, 32)) -> None:
    """Both axes logarithmic, with the diagonal and the line of no gain."""
    low, high = 0.9 * min(1.0, least), 1.15 * most
    ax.plot([1, high], [1, high], color=_RATIO[1].colour, linewidth=0.9, zorder=1.6)
    ax.axhline(1, color=GREY, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1.5)
    ax.set(xscale="log", yscale="log", xlim=(0.9, high), ylim=(low, high))
    for axis, start in ((ax.xaxis, 0.9), (ax.yaxis, low)):
        axis.set_ticks([tick for tick in ticks if start <= tick <= high])
        axis.set_ticks([], minor=True)
        axis.set_major_formatter("{x:g}")


def _where(key: tuple) -> str:
    network, device, threads, batch = key
    processor = f"{threads} thread{'' if threads == 1 else 's'}" if device == "cpu" else device
    return f"{named(network)}, {processor},\n{batch} image{'' if batch == 1 else 's'} at a time"


@styled
def draw_whole(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """Whole networks: measured speed-up against the ratio of MACs, a panel for each network, number of threads and of images."""
    groups = list(table.groupby(["network", "device", "threads", "batch"], sort=False))
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure, axes = grid(rows, columns, PAGE, 2.05 * rows)
    names: dict[str, Look] = {}
    for at, (key, part) in enumerate(groups):
        ax = axes[at // columns][at % columns]
        _ratios(ax, max(part["macs_ratio"].max(), part["speedup"].max()), part["speedup"].min())
        bound = part.sort_values("macs_ratio")
        ax.plot(bound["macs_ratio"], bound["amdahl_bound"], color=_BOUND[1].colour, linestyle=_BOUND[1].stroke, linewidth=0.9, zorder=1.7)
        names |= dict([_RATIO, _BOUND])
        of_params = part[part["budget"] == "params"]
        for depth, (name, own) in enumerate(_RANKS.items()):
            line = of_params[(of_params["round_to"] == 8) == (own.hollow)].sort_values("macs_ratio")
            curve(ax, line["macs_ratio"], line["speedup"], own, 0.3 + 0.5 * depth)
            names[name] = own
        for blocking, points in part[part["budget"] == "macs"].groupby("blocking", sort=False):
            own = Look(
                look(str(blocking)).colour if blocking != "none" else GREEN, "D" if blocking == "none" else look(str(blocking)).marker, ""
            )
            ax.plot(points["macs_ratio"], points["speedup"], marker=own.marker, color=own.colour, linestyle="", markersize=5, zorder=4)
            names[f"70 % of MACs, {BLOCKINGS.get(str(blocking), blocking)}"] = own
        ax.set_title(_where(key))
        ax.set_xlabel("ratio of MACs, dense to compressed")
        if at % columns == 0:
            ax.set_ylabel("times faster")
    free = [*axes.flat][len(groups) :]
    for ax in free:
        ax.set_axis_off()
    name_lines(axes.flat[len(groups) - 1], [(name, own, [1.0], [np.nan]) for name, own in names.items()], room=not free)
    return table.round(3).to_string(index=False), save_figure(figure, target)


@styled
def draw_layers(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """Layers by themselves: measured speed-up against the ratio of MACs, a panel for each network and size of the input."""
    sizes = table["input"].astype(str).map(lambda text: text.partition("x")[2].replace("x", " × ") or "vectors")
    groups = list(table.assign(size=sizes).groupby(["network", "device", "threads", "batch", "size"], sort=False))
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure, axes = grid(rows, columns, PAGE, 1.65 * rows)
    named_later = []
    for at, ((network, *_, size), part) in enumerate(groups):
        ax, found = axes[at // columns][at % columns], []
        _ratios(ax, table["macs_ratio"].max(), table["speedup"].min(), (0.25, 1, 4, 16, 64))
        layers = list(part.groupby("layer", sort=False))
        for i, (_, line) in enumerate(layers):
            own, line = _LAYERS[i % len(_LAYERS)], line.sort_values("macs_ratio")
            curve(ax, line["macs_ratio"], line["speedup"], own, i / max(1, len(layers) - 1))
            name = str(line["shape"].iloc[0]).replace("x", " × ")
            found.append((name, own, line["macs_ratio"].to_numpy(float), line["speedup"].to_numpy(float)))
        ax.set_title(f"{named(network)}, {size}")
        if at >= len(groups) - columns:
            ax.set_xlabel("ratio of MACs")
        if at % columns == 0:
            ax.set_ylabel("times faster")
        named_later.append((ax, found))
    for ax in [*axes.flat][len(groups) :]:
        ax.set_axis_off()
    for ax, found in named_later:
        name_lines(ax, found)
    return table.round(3).to_string(index=False), save_figure(figure, target)


@styled
def draw_batch(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """Speed-up against the number of images at a time, forward alone and with the backward pass."""
    figure, axes = grid(1, 1, 1.3 * COLUMN, 2.3)
    ax, found = axes[0][0], []
    groups = list(table.groupby(["device", "threads", "what"], sort=False))
    for i, ((device, threads, what), line) in enumerate(groups):
        own = Look((BLUE, VERMILION, GREEN)[i % 3], "os^"[i % 3], ("-", (0, (4, 1.6)), (0, (1.2, 1.2)))[i % 3], i % 2 == 1)
        line = line.sort_values("batch")
        curve(ax, line["batch"], line["speedup"], own, i / max(1, len(groups) - 1))
        several = table[["device", "threads"]].drop_duplicates().shape[0] > 1
        name = f"{what}, {device}, {threads} threads" if several else str(what)
        found.append((name, own, line["batch"].to_numpy(float), line["speedup"].to_numpy(float)))
    level(ax, table["macs_ratio"].iloc[0], "the ratio of MACs", right=True)
    level(ax, 1, "as fast as dense", right=True)
    ax.set_xscale("log", base=2)
    sizes = sorted(table["batch"].unique())
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.set(xlabel="images at a time", ylabel="times faster", ylim=(0.8, None))
    removed = 100 * table["sparsity_params"].iloc[0]
    ax.set_title(f"{named(table['network'].iloc[0])}, {removed:.0f} % of the parameters removed")
    name_lines(ax, found)
    return table.round(3).to_string(index=False), save_figure(figure, target)


WHOLE = Figure(
    "speed_whole", partial(collect_tables, columns=[*_TIMED, "blocking", "budget", "round_to", "amdahl_bound"]), draw_whole, None,
    "Speed of whole networks against the ratio of their multiply-accumulates (speed_summary.csv).",
)  # fmt: skip
LAYERS = Figure(
    "speed_layers", partial(collect_tables, columns=[*_TIMED, "layer", "shape", "input"]), draw_layers, None,
    "Speed of single layers against the ratio of their multiply-accumulates (speed_layers.csv).",
)  # fmt: skip
BATCH = Figure(
    "speed_batch", partial(collect_tables, columns=[*_TIMED, "what", "sparsity_params"]), draw_batch, None,
    "Speed against the number of images at a time (speed_batch.csv).",
)  # fmt: skip
