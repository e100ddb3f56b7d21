"""Accuracy against sparsity, from result tables alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lrp.errors import InputError
from lrp.figure.base import Figure
from lrp.figure.panels import Axis, small_multiples
from lrp.results.collect import collect
from lrp.results.columns import COLUMNS, MEASURED, OWN_COLUMN
from lrp.results.labels import apart, blocking_label, distinct, line_kind, line_label, named

SEEDS = ["seed", "calibration_seed"]
PARAMETERS = Axis("x", "parameters removed (%)")
MACS = Axis("macs", "MACs removed (%)")
TIMES = (Axis("faster_64", "times faster, 64 images", share=False), Axis("faster_1", "times faster, one image", share=False))
MEANS = {"x": ("sparsity_params", "mean"), "macs": ("sparsity_macs", "mean"), "dense": ("accuracy_dense", "mean")}  # of a point
FEW = 7  # lines that one panel can hold


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
    shared = {label: set.intersection(*(set(words(options)) for options in part["options"])) for label, part in among.items()}
    for name, (images, ratio) in {"faster_64": (64, "latency_dense_64"), "faster_1": (1, "latency_dense_1")}.items():
        table[name] = pd.to_numeric(table[ratio], "coerce") / pd.to_numeric(table[f"latency_{images}"], "coerce")
    groups = [(dict(zip(keys, key)), part) for key, part in table.groupby(keys, dropna=False, sort=False)]
    labels = [line_label(chosen) for chosen, _ in groups]
    details = [""] * len(groups)
    for label in dict.fromkeys(labels):
        own = [i for i, each in enumerate(labels) if each == label]
        for i, text in zip(own, apart([_differences(groups[i][0], differing[label], shared[label]) for i in own])):
            details[i] = text
    means = {"x": "sparsity_params", "y": column, "dense": "accuracy_dense", "macs": "sparsity_macs"}
    named_means = {name: (source, "mean") for name, source in means.items()} | {name: (name, "mean") for name in ("faster_64", "faster_1")}
    lines = []
    for (chosen, part), label, detail in zip(groups, labels, details):
        at = part.groupby("sparsity").agg(**named_means, spread=(column, "std"), seeds=(column, "size"))
        lines.append(
            at.reset_index().assign(
                line=", ".join(filter(None, [label, detail])),
                detail=detail,
                blocking=chosen["blocking"] if isinstance(chosen["blocking"], str) else "",
                blocks=blocking_label(chosen),
                scorer=line_kind(chosen),
            )
        )
    return pd.concat(lines, ignore_index=True)


def _differences(chosen: Mapping[str, Any], differing: Sequence[str], shared: set[str]) -> list[tuple[str, Any]]:
    """The columns and options of a line in which it differs from others of its label."""
    found = [(name, chosen[name]) for name in differing if name != "options"]
    if "options" in differing:
        found += pairs(word for word in words(chosen["options"]) if word not in shared) or [("options", "default")]
    return found


def _with_forms(options: Sequence[str | None]) -> list[str | None]:
    """The options with the forms of rows that name none, matrix alone, where other rows name theirs."""
    if not any("forms=" in (text or "") for text in options):
        return list(options)
    return [text if "forms=" in (text or "") else f"{text or ''} forms=['matrix']".strip() for text in options]


def _unsaid(row: Mapping[str, Any]) -> str | None:
    """The options of a row without those that a column of it says as well."""
    said = [name for name, (column, _) in OWN_COLUMN.items() if not pd.isna(row[column])]
    return " ".join(word for word in words(row["options"]) if word.partition("=")[0] not in said) or None


def words(options: object) -> list[str]:
    """The options of a row, one by one."""
    return options.split() if isinstance(options, str) else []


def pairs(options: Iterable[str]) -> list[tuple[str, object]]:
    """Of each option its name and its value."""
    return [(word.partition("=")[0], word.partition("=")[2]) for word in options]


def subject(table: pd.DataFrame) -> str:
    """What a table is of: the networks on the data sets."""
    return f"{', '.join(map(named, table['model'].unique()))} on {', '.join(map(named, table['dataset'].unique()))}"


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
    """Accuracy against what is removed: a row of panels for parameters, one for MACs, and one for times where they were measured.

    Where scores are compared under several blockings, each blocking has a panel; where there are more lines than one panel can hold,
    each score or method has. A band is one standard deviation over seeds. Writes ``target`` as PNG and PDF and returns both paths.
    """
    lines = in_panels(average_over_seeds(table, column))
    if reference is not None:
        parts = [reference.assign(panel=panel) for panel in lines["panel"].unique()]
        macs = 1 - reference["macs_kept"] if "macs_kept" in reference else reference.get("sparsity_macs", float("nan"))
        other = pd.concat([part.assign(macs=macs, y=part[reference_column], x=part["sparsity_params"]) for part in parts])
        name = other["method"].map(lambda method: f"{named(method)}, reference")
        lines = pd.concat([lines, other.assign(name=name, thing="reference", seeds=1)], ignore_index=True)
    where = "validation" if (table["part"] == "validation").all() else "test"
    said = subject(table)
    if column == "accuracy_before_recovery":
        said += ", before recovery"
    times = [axis for axis in TIMES if lines[axis.column].notna().any()]
    return small_multiples(lines, [PARAMETERS, MACS, *times], target, f"{where} accuracy (%)", said if title is None else title)


def in_panels(lines: pd.DataFrame) -> pd.DataFrame:
    """The lines with their ``panel``, their ``name`` in it and their ``thing``, which the colour stands for."""
    lines = lines.assign(thing=lines["scorer"], panel="", name=lines["line"])
    each = lines.drop_duplicates("line")
    blocks = [name for name in lines["blocks"].unique() if name]
    few = all(each["blocks"].isin([name, ""]).sum() <= FEW for name in blocks)
    if len(blocks) > 1 and each["scorer"].duplicated().any() and few:
        short = lines["scorer"].map(named) + lines["detail"].map(lambda text: f", {text}" if text else "")
        parts = [lines.assign(name=short)[lines["blocks"].isin([name, ""])].assign(panel=name) for name in blocks]
        return pd.concat(parts, ignore_index=True)
    if len(each) > FEW:
        return lines.assign(panel=lines["scorer"].map(named), name=_without_kind(lines))
    return lines


def _without_kind(lines: pd.DataFrame) -> pd.Series:
    """The names of lines in a panel that is called as their scorer or method."""
    kinds = lines["scorer"].map(named)
    return pd.Series([line.removeprefix(f"{kind}, ") for line, kind in zip(lines["line"], kinds)], lines.index)


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
