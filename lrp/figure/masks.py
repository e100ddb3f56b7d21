"""The tables and the figures of networks pruned before or while they are trained, from result tables alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd

from lrp.figure.accuracy import FEW
from lrp.figure.base import Figure
from lrp.figure.palette import looks
from lrp.figure.style import PAGE, accuracy_axis, band, curve, grid, level, name_lines, one_setting, save_figure, styled, write_tables
from lrp.results.collect import collect_study
from lrp.results.labels import distinct, named

_MEASURED = ["accuracy", "accuracy_validation", "loss", "weights", "kept", "sparsity_params", "layers_empty"]
_AT_KEYS = ["decomposition", "selection", "scorer", "sparsity", "mask"]
_IN_ROUNDS_KEYS = ["scorer", "selection", "round"]
_DENSE = "dense"


def _cells(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of the accuracy of each cell."""
    named = {"mean": ("accuracy", "mean"), "std": ("accuracy", "std"), "seeds": ("accuracy", "size"), "kept": ("kept", "mean")}
    return table.groupby(keys, sort=False).agg(**named, weights=("weights", "mean")).reset_index()


def at_initialisation_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of the accuracy of each scorer, sparsity and mask."""
    return _cells(one_setting(table, _AT_KEYS, _MEASURED), _AT_KEYS)


def iterative_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of the accuracy of each scorer and selection after each round."""
    return _cells(one_setting(table, _IN_ROUNDS_KEYS, _MEASURED), _IN_ROUNDS_KEYS)


def _text(cell: pd.Series | None) -> str:
    if cell is None:
        return ""
    spread = f" ± {100 * cell['std']:.2f}" if cell["seeds"] > 1 else ""
    return f"{100 * cell['mean']:.2f}{spread}"


def _grid(cells: pd.DataFrame, lines: list[str], columns: dict[str, dict[str, object]]) -> str:
    """Markdown: a row for each combination of ``lines``, a column for each title, which holds the cell with these values."""
    rows = ["| " + " | ".join([*lines, *columns]) + " |", "|" + "---|" * (len(lines) + len(columns))]
    for key, part in cells.groupby(lines, sort=False):
        texts = []
        for values in columns.values():
            found = part[(part[[*values]] == pd.Series(values)).all(axis=1)]
            texts.append(_text(found.iloc[0] if len(found) else None))
        rows.append("| " + " | ".join([*map(str, key), *texts]) + " |")
    return "\n".join(rows) + "\n"


def _dense(cells: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The cells of pruned networks, and a sentence about the dense one."""
    dense, pruned = cells[cells["scorer"] == _DENSE], cells[cells["scorer"] != _DENSE]
    return pruned, f"\nThe dense network: {_text(dense.iloc[0])}.\n" if len(dense) else ""


def at_initialisation_markdown(cells: pd.DataFrame) -> str:
    """Accuracy (%), mean ± standard deviation: a row for each scorer, a column for each sparsity and mask."""
    pruned, said = _dense(cells)
    masks = [*dict.fromkeys(pruned["mask"])]
    columns = {f"{100 * s:g} % removed, {m}": {"sparsity": s, "mask": m} for s in sorted(pruned["sparsity"].unique()) for m in masks}
    several = [name for name in ("decomposition", "selection") if pruned[name].nunique() > 1]
    return _grid(pruned, [*several, "scorer"], columns) + said


def iterative_markdown(cells: pd.DataFrame) -> str:
    """Accuracy (%), mean ± standard deviation: a row for each scorer and selection, a column for each round."""
    pruned, said = _dense(cells)
    left = pruned.groupby("round")["kept"].max() / pruned["weights"].max()
    columns = {f"{100 * left[n]:.3g} % left": {"round": n} for n in left.index}
    return _grid(pruned, ["scorer", "selection"], columns) + said


@styled
def _draw(table: pd.DataFrame, cells: pd.DataFrame, names: list[str], what: str, target: Path) -> list[Path]:
    """Accuracy by the share that is left, a line for each combination of ``names``, a panel for each of the last one's values that
    has several lines; of a scorer one colour."""
    pruned, _ = _dense(cells)
    names = [name for name in names if distinct(pruned[name]) > 1] or names[-1:]
    many = len(names) > 1 and pruned.groupby(names).ngroups > FEW
    panels = list(dict.fromkeys(pruned[names[-1]])) if many else [None]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = grid(rows, columns, PAGE if columns > 1 else 4.8, 2.3 * rows + 0.2, sharey=True)
    groups = [(key, part.sort_values("kept")) for key, part in pruned.groupby(names, sort=False)]
    inside = [dict(zip(names, key)) for key, _ in groups]
    for at, panel in enumerate(panels):
        ax, found = axes[at // columns][at % columns], []
        here = [i for i, values in enumerate(inside) if panel is None or values[names[-1]] == panel]
        shown = [[name for name in names if panel is None or name != names[-1]] for _ in here]
        ax.set_xscale("log")
        accuracy_axis(
            ax,
            [*(100 * cells["mean"]), *(100 * (cells["mean"] - cells["std"].fillna(0)))],
            "test accuracy (%)" if at % columns == 0 else None,
        )
        things = [str(groups[i][1]["scorer"].iloc[0]) for i in here]
        for depth, (i, own, words) in enumerate(zip(here, looks(things), shown)):
            part = groups[i][1]
            x = 100 * part["kept"] / part["weights"]
            curve(ax, x, 100 * part["mean"], own, depth / max(1, len(here) - 1))
            band(ax, x, part["mean"], part["std"], own.colour)
            found.append((", ".join(named(inside[i][name]) for name in words), own, x.to_numpy(float), 100 * part["mean"].to_numpy(float)))
        for dense in cells[cells["scorer"] == _DENSE]["mean"][:1]:
            level(ax, 100 * dense, "dense")
        ax.set(xlabel="weights left (%)", title=None if panel is None else f"{named(panel)}{' mask' if names[-1] == 'mask' else ''}")
        low, high = ax.get_xlim()
        ax.set_xticks([tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high])
        ax.set_xticks([], minor=True)
        ax.xaxis.set_major_formatter("{x:g}")
        name_lines(ax, found)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    seeds = cells["seeds"].max()
    figure.suptitle(
        f"{named(table['network'].iloc[0])} on {named(table['dataset'].iloc[0])}, {what}, {seeds} seed{'' if seeds == 1 else 's'}"
    )
    return save_figure(figure, target)


def draw_at_initialisation(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """The table (.csv, .md) and accuracy by the share that is left (.png, .pdf); the table as text, and the paths."""
    cells = at_initialisation_table(table)
    markdown = at_initialisation_markdown(cells)
    paths = _draw(table, cells, ["decomposition", "selection", "scorer", "mask"], "pruned before training", target)
    return markdown, [*write_tables(target, markdown, cells), *paths]


def draw_iterative(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """As ``draw_at_initialisation``, of networks pruned in rounds."""
    cells = iterative_table(table)
    markdown = iterative_markdown(cells)
    paths = _draw(table, cells, ["scorer", "selection"], "pruned in rounds", target)
    return markdown, [*write_tables(target, markdown, cells), *paths]


AT_INITIALISATION = Figure(
    "at_initialisation", partial(collect_study, name="at_initialisation", columns=[*_AT_KEYS, *_MEASURED]), draw_at_initialisation,
    "layers.csv", "Networks pruned before they are trained, beside the same mask shuffled inside each layer.",
)  # fmt: skip
ITERATIVE = Figure(
    "iterative", partial(collect_study, name="iterative", columns=[*_IN_ROUNDS_KEYS, *_MEASURED]), draw_iterative, "layers.csv",
    "Networks pruned in rounds of training, by how each round divides what goes.",
)  # fmt: skip
