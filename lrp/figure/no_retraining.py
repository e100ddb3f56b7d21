"""Accuracy without a gradient step: a panel for each method, as pruned and with batch norm re-estimated, from result tables alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lrp.errors import InputError
from lrp.figure.accuracy import MACS, MEANS, PARAMETERS, SEEDS, pairs, read_reference, subject, words
from lrp.figure.base import Figure
from lrp.figure.panels import small_multiples
from lrp.results.collect import collect
from lrp.results.columns import COLUMNS, MEASURED, OWN_COLUMN
from lrp.results.labels import apart, blocking_label, distinct, named, said

TREATMENTS = {"accuracy_before_recovery": "as pruned", "accuracy": "batch norm re-estimated"}
_HANDLED = {
    "model",
    "method",
    "blocking",
    "blocking_k",
    "compensation",
    "exclude",
    "recovery",
    "calibration_images",
    "rounds",
    "sparsity",
    *SEEDS,
}
_COMPARED = [name for name in COLUMNS if name not in _HANDLED and name not in MEASURED]


def settings(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``variant``: in words how a row differs from what is usual for its method ("": in nothing).

    Options may differ from sparsity to sparsity, as where they were chosen for each; where they differ at one, they make lines.

    Raises:
        InputError: Where batch norm was re-estimated nowhere.
    """
    table = table.assign(compensation=table["compensation"].fillna("none"))
    table = table[table["recovery"] == "batchnorm"]
    if table.empty:
        raise InputError("the tables hold no rows of recovery=batchnorm, whose two accuracies this figure compares")
    table = table.assign(blocks=table.apply(blocking_label, axis=1), variant="")
    parts = []
    for _, part in table.groupby(["model", "method"], sort=False):
        for name in ("blocks", "compensation", "exclude", "calibration_images"):
            if distinct(part[name]) > 1:
                counts = part[name].fillna("").value_counts(sort=True)
                usual = next(value for value in part[name].fillna("") if counts[value] == counts.iloc[0])
                words = part[name].map(lambda value, name=name: value if name == "blocks" else said(name, value))
                other = part[name].fillna("") != usual
                part = part.assign(variant=part["variant"].where(~other, (part["variant"] + ", " + words).str.removeprefix(", ")))
        parts.append(part)
    found = pd.concat(parts, ignore_index=True)
    return pd.concat([_by_options(part) for _, part in found.groupby(["model", "method", "variant"], sort=False)], ignore_index=True)


def _by_options(part: pd.DataFrame) -> pd.DataFrame:
    """The rows of one line, the differences in their variants where some differ at one sparsity in more than their seeds."""
    one = part.groupby("sparsity")[_COMPARED].agg(distinct).max()
    differing = [name for name in _COMPARED if one[name] > 1]
    if not differing:
        return part.drop_duplicates(["sparsity", "seed", "calibration_seed"], keep="last")
    options = [words(text) for text in part["options"]]
    shared = set.intersection(*map(set, options))
    found: list[tuple[tuple[str, object], ...]] = [
        (
            *((name, value) for name, value in zip(differing, values) if name != "options"),
            *(pair for pair in pairs(word for word in own if word not in shared) if pair[0] not in OWN_COLUMN),
        )
        for values, own in zip(part[differing].itertuples(index=False), options)
    ]
    texts = dict(zip(dict.fromkeys(found), apart(list(dict.fromkeys(found)))))
    variants = [", ".join(filter(None, [variant, texts[own]])) for variant, own in zip(part["variant"], found)]
    return part.assign(variant=variants).drop_duplicates(["variant", "sparsity", "seed", "calibration_seed"], keep="last")


def treated(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model, method, variant, treatment and sparsity: mean, standard deviation and number of seeds of the accuracy.

    Raises:
        InputError: As ``settings``.
    """
    rows, parts = settings(table), []
    for column, treatment in TREATMENTS.items():
        groups = rows.groupby(["model", "method", "variant", "sparsity"], sort=False)
        found = groups.agg(**MEANS, y=(column, "mean"), spread=(column, "std"), seeds=(column, "size"))
        parts.append(found.reset_index().assign(treatment=treatment))
    return pd.concat(parts, ignore_index=True)


def panels(found: pd.DataFrame, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """As ``small_multiples`` takes it: a panel for each method, the first method's usual line in each. Of a variant the better
    treatment is drawn; ``reference``: in the panel of the method that it names."""
    of_model = found["model"].nunique() > 1
    title = found["method"].map(named) + (found["model"].map(lambda model: f", {named(model)}") if of_model else "")
    found = found.assign(panel=title, thing=found["method"], name=found["treatment"])
    usual, variants = found[found["variant"] == ""], found[found["variant"] != ""]
    kinds = ["model", "method", "variant", "treatment"]
    best = variants.groupby(kinds, sort=False)["y"].mean().reset_index().sort_values("y", ascending=False)
    best = best.drop_duplicates(["model", "method", "variant"])[kinds]
    better = variants.merge(best, on=kinds)
    parts = [usual, better.assign(name=better["variant"])]
    first = usual[(usual["method"] == found["method"].iloc[0]) & (usual["treatment"] == next(iter(TREATMENTS.values())))]
    for (panel, model), part in usual.groupby(["panel", "model"], sort=False):
        if part["method"].iloc[0] != found["method"].iloc[0]:
            own = first[first["model"] == model]
            parts.append(own.assign(panel=panel, name=own["method"].map(named) + ", as pruned"))
    if reference is not None:
        for column, treatment in {"accuracy": "as pruned", "accuracy_batchnorm": "batch norm re-estimated"}.items():
            for panel, part in usual.groupby("panel", sort=False):
                other = reference[reference["method"] == part["method"].iloc[0]]
                if len(other) and column in other:
                    macs = 1 - other["macs_kept"] if "macs_kept" in other else float("nan")
                    other = other.assign(x=other["sparsity_params"], macs=macs, y=other[column], seeds=1, thing="reference")
                    parts.append(other.assign(panel=panel, name=f"reference, {treatment.removeprefix('batch norm ')}"))
    return pd.concat(parts, ignore_index=True)


def text(found: pd.DataFrame) -> str:
    """Accuracy (%) of each method, variant and treatment, a column for each sparsity."""
    cells = [f"{100 * y:.2f}" + (f" ± {100 * s:.2f}" if n > 1 else "") for y, s, n in zip(found["y"], found["spread"], found["seeds"])]
    words = found[["method", "variant", "treatment"]].apply(
        lambda row: ", ".join(filter(None, [named(row.iloc[0]), *row.iloc[1:]])), axis=1
    )
    table = found.assign(cell=cells, line=words)
    index = ["model", "line"] if found["model"].nunique() > 1 else "line"
    wide = table.pivot_table(index=index, columns="sparsity", values="cell", aggfunc="first", sort=False).sort_index(axis=1)
    return wide.fillna("").rename_axis(index=None if isinstance(index, str) else [None, None]).to_string()


def draw_no_retraining(
    table: pd.DataFrame, details: pd.DataFrame | None, target: Path, reference: Path | None = None
) -> tuple[str, list[Path]]:
    """The table as text, and the figure (.png, .pdf). ``reference``: another system's table, drawn beside the method it names."""
    found = treated(table)
    other = None if reference is None else read_reference(reference, "accuracy")
    what = f"{subject(table)}, nothing trained"
    lines = panels(found, other)
    return text(found), small_multiples(lines, [PARAMETERS, MACS], target, "test accuracy (%)", what, key=True)


FIGURE = Figure(
    "no_retraining", collect, draw_no_retraining, None,
    "Accuracy without a gradient step: a panel for each method, as pruned and with batch norm re-estimated.",
    {"--reference": {"type": Path, "help": "another system's table: method, sparsity_params or params_kept, accuracy, accuracy_batchnorm"}},
)  # fmt: skip
