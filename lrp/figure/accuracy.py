"""Accuracy against sparsity, from result tables alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from lrp.errors import InputError
from lrp.figure.base import Figure
from lrp.figure.style import band, save_with_legend
from lrp.results.collect import collect
from lrp.results.columns import COLUMNS, MEASURED, OWN_COLUMN
from lrp.results.labels import distinct, line_kind, line_label

SEEDS = ["seed", "calibration_seed"]
_FIRST_COLOURS = ("magnitude", "relative_error", "perturbation", "variance")  # the same in every figure
_STYLES = {"none": "-", "alds": "--", "square": ":"}


def average_over_seeds(table: pd.DataFrame, column: str = "accuracy") -> pd.DataFrame:
    """One row per line and sparsity: the mean, standard deviation and number of seeds of ``column``, x the achieved sparsity.

    Rows are averaged that differ in seeds alone; whatever else differs makes its own line, named in ``line``. A trained
    network's hash follows from its seed and then counts as no difference.

    Raises:
        InputError: For tables without the column, without rows, or with texts in place of numbers.
    """
    if column not in table:
        raise InputError(f"the tables have no column {column}")
    if not len(table):
        raise InputError("the tables hold no rows yet")
    for name in ("sparsity", "sparsity_params", "accuracy_dense", column):
        if not pd.api.types.is_numeric_dtype(table[name]) and table[name].notna().any():
            raise InputError(f"the column {name} of the tables holds texts, where numbers are expected")
    table = table.assign(options=_with_forms([_unsaid(row) for row in table.to_dict("records")]))
    # of runs whose options say what rounds they had, their number follows from the sparsity
    table = table.assign(rounds=table["rounds"].mask(table["options"].astype(str).str.contains("rounds.keep_factor"), 1))
    asked = [name for name in COLUMNS if name not in MEASURED and name not in [*SEEDS, "sparsity"]]
    table = table.drop_duplicates(subset=[*asked, *SEEDS, "sparsity"], keep="last")
    keys = [name for name in asked if name != "checkpoint_sha256"]
    by_seed = table.groupby([*keys, *SEEDS], dropna=False)["checkpoint_sha256"].nunique()
    if (by_seed > 1).any():
        keys.append("checkpoint_sha256")
    among = {label: part for label, part in table.groupby(table.apply(line_label, axis=1), sort=False)}
    differing = {label: [k for k in keys if distinct(part[k]) > 1] for label, part in among.items()}
    shared = {label: set.intersection(*(set(_words(options)) for options in part["options"])) for label, part in among.items()}
    lines = []
    for key, part in table.groupby(keys, dropna=False, sort=False):
        named = dict(zip(keys, key))
        label = line_label(named)
        extra = [f"{k}={_short(named[k])}" for k in differing[label] if k != "options"]
        if "options" in differing[label]:
            extra.append(" ".join(word for word in _words(named["options"]) if word not in shared[label]) or "default options")
        means = part.groupby("sparsity").agg(
            x=("sparsity_params", "mean"),
            y=(column, "mean"),
            spread=(column, "std"),
            seeds=(column, "size"),
            dense=("accuracy_dense", "mean"),
        )
        lines.append(
            means.reset_index().assign(
                line=", ".join([label, *extra]),
                blocking=named["blocking"] if isinstance(named["blocking"], str) else "",
                scorer=line_kind(named),
            )
        )
    return pd.concat(lines, ignore_index=True)


def _with_forms(options: Sequence[str | None]) -> list[str | None]:
    """The options with the forms of rows that name none, matrix alone, where other rows name theirs."""
    if not any("forms=" in (words or "") for words in options):
        return list(options)
    return [words if "forms=" in (words or "") else f"{words or ''} forms=['matrix']".strip() for words in options]


def _unsaid(row: Mapping[str, Any]) -> str | None:
    """The options of a row without those that a column of it says as well."""
    said = [name for name, (column, _) in OWN_COLUMN.items() if not pd.isna(row[column])]
    return " ".join(word for word in _words(row["options"]) if word.partition("=")[0] not in said) or None


def _words(options: object) -> list[str]:
    return options.split() if isinstance(options, str) else []


def _short(value: object) -> str:
    if pd.isna(value):
        return "none"
    return f"{value:g}" if isinstance(value, float) else text if len(text := str(value)) < 30 else text[:8]  # a hash


def read_reference(file: Path, column: str) -> pd.DataFrame:
    """Another system's curves: columns ``method`` (or one line), ``sparsity_params`` or ``params_kept``, and ``column``.

    Raises:
        InputError: For a file that does not exist or lacks a column.
    """
    if not file.is_file():
        raise InputError(f"--reference {file}: no such file")
    table = pd.read_csv(file)
    if "sparsity_params" not in table and "params_kept" in table:
        table["sparsity_params"] = 1 - table["params_kept"]
    missing = [name for name in ("sparsity_params", column) if name not in table]
    if missing:
        raise InputError(f"--reference {file}: it lacks the column {' and '.join(missing)}; it has {', '.join(table.columns)}")
    if "method" not in table:
        table["method"] = file.stem
    return table


def draw_figure3(
    table: pd.DataFrame, target: Path, column: str = "accuracy", reference: pd.DataFrame | None = None,
    reference_column: str = "accuracy", title: str | None = None,
) -> list[Path]:  # fmt: skip
    """Accuracy against sparsity, one line per blocking and scorer, all sparsities on the left and from 0.9 on the right.

    Colours are scorers, strokes are blockings; a band is one standard deviation over seeds. Writes ``target`` as PNG and
    PDF and returns both paths.
    """
    lines = average_over_seeds(table, column)
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.2))
    for ax, start in zip(axes, (0.0, 0.9)):
        _draw_lines(ax, lines, start)
        if reference is not None:
            _draw_reference(ax, reference, reference_column, start)
        for i, dense in enumerate(sorted(set(lines["dense"].round(6)))):
            ax.axhline(100 * dense, color="grey", linewidth=0.8, linestyle=(0, (1, 3)), label="dense" if i == 0 else None)
        ax.set(xlabel="sparsity (share of parameters removed)", ylabel="test accuracy (%)")
        ax.set_title("all sparsities" if start == 0 else "0.9 and above")
        ax.grid(alpha=0.25)
    axes[1].set_xlim(left=0.895)
    figure.suptitle(title or f"{', '.join(table['model'].unique())} on {', '.join(table['dataset'].unique())} ({column.replace('_', ' ')})")
    return save_with_legend(figure, target)


def _draw_lines(ax: Axes, lines: pd.DataFrame, start: float) -> None:
    """The lines from a sparsity on; lines of one colour and stroke differ in their markers."""
    scorers = list(dict.fromkeys([*_FIRST_COLOURS, *lines["scorer"]]))
    kinds = lines.drop_duplicates("line").set_index("line")[["blocking", "scorer"]]
    for name, (blocking, scorer) in zip(kinds.index, kinds.itertuples(index=False)):
        part = lines[(lines["line"] == name) & (lines["sparsity"] >= start)].sort_values("x")
        if part.empty:
            continue
        siblings = list(kinds.index[(kinds == (blocking, scorer)).all(axis=1)])
        colour = f"C{scorers.index(scorer)}"
        style: dict[str, Any] = {"color": colour, "linestyle": _STYLES.get(blocking, "-."), "marker": "osDv^P*X"[siblings.index(name) % 8]}
        ax.plot(part["x"], 100 * part["y"], label=name, markersize=3.5, linewidth=1.4, **style)
        if (part["seeds"] > 1).any():
            band(ax, part["x"], part["y"], part["spread"], colour)


def _draw_reference(ax: Axes, reference: pd.DataFrame, column: str, start: float) -> None:
    for name, part in reference.groupby("method"):
        part = part[part["sparsity_params"] >= start - 0.005].sort_values("sparsity_params")
        ax.plot(part["sparsity_params"], 100 * part[column], "k-x", label=f"{name} (reference)", markersize=4, linewidth=1.2)


def accuracy_table(table: pd.DataFrame, column: str = "accuracy") -> str:
    """Accuracy in percent, one row per line, one column per requested sparsity."""
    lines = average_over_seeds(table, column)
    wide = lines.pivot_table(index="line", columns="sparsity", values="y", sort=False).sort_index(axis=1)
    return (100 * wide).map("{:.1f}".format).rename_axis(index=None, columns="sparsity").to_string()


def text_table(table: pd.DataFrame) -> str:
    """Perplexity, and below it divergence, one row per line, one column per requested sparsity."""
    parts = []
    for column, form in (("perplexity", "{:.3f}"), ("divergence", "{:.4f}")):
        wide = average_over_seeds(table, column).pivot_table(index="line", columns="sparsity", values="y", sort=False).sort_index(axis=1)
        parts.append(f"{column}\n{wide.map(form.format).rename_axis(index=None, columns='sparsity').to_string()}")
    return "\n\n".join(parts)


def _draw(
    table: pd.DataFrame, details: pd.DataFrame | None, target: Path, column: str = "accuracy", reference: Path | None = None,
    reference_column: str = "accuracy", title: str | None = None,
) -> tuple[str, list[Path]]:  # fmt: skip
    other = None if reference is None else read_reference(reference, reference_column)
    text = "perplexity" in table and column == "accuracy" and bool(table["perplexity"].notna().all())
    return text_table(table) if text else accuracy_table(table, column), draw_figure3(table, target, column, other, reference_column, title)


FIGURE = Figure(
    "figure3", collect, _draw, None,
    "Figure 3: accuracy against sparsity. Averages over seeds alone; whatever else differs is a line of its own.",
    {
        "--reference": {"type": Path, "help": "another system's table: method, sparsity_params or params_kept, accuracy"},
        "--reference-column": {"default": "accuracy", "help": "its column to draw (accuracy)"},
        "--column": {"default": "accuracy", "choices": ["accuracy", "accuracy_before_recovery"], "help": "what to draw (accuracy)"},
        "--title": {"help": "above the figure (the networks and data sets)"},
    },
)  # fmt: skip
