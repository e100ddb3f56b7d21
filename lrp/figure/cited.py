"""The scores that the paper cites, a panel for each unit and treatment, from the tables of experiment=cited."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd

from lrp.figure.accuracy import MACS, MEANS, PARAMETERS
from lrp.figure.base import Figure
from lrp.figure.panels import small_multiples
from lrp.figure.style import stem_of
from lrp.results.collect import collect
from lrp.results.labels import named

UNITS = {"svd": "singular triplets", "filters": "filters", "entries": "weights"}
TREATMENTS = ("nothing recovered", "batch norm re-estimated", "compensated")
SOFTMAX = "perturbation, softmax"
_KEYS = ["model", "decomposition", "score", "treatment", "sparsity"]


def treated(table: pd.DataFrame) -> pd.DataFrame:
    """One row per network, unit, score, treatment and sparsity: mean, standard deviation and number of seeds of the accuracy.

    A row with compensation counts as it is before batch norm is re-estimated; the others count before and after it.
    """
    found = _rows(table).groupby(_KEYS)["y"].agg(["mean", "std", "size"])
    return found.reset_index()


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    """Every row once for each treatment that it tells of: with ``score``, ``treatment`` and the accuracy ``y``."""
    softmax = table["options"].fillna("").str.contains("estimator.output=hellinger")
    table = table.assign(score=table["scorer"].where(~softmax, table["scorer"] + ", softmax"))
    plain = table["compensation"].fillna("none").eq("none")
    again = plain & table["recovery"].eq("batchnorm")
    parts = [
        table[plain].assign(treatment=TREATMENTS[0], y=table["accuracy_before_recovery"]),
        table[again].assign(treatment=TREATMENTS[1], y=table["accuracy"]),
        table[~plain].assign(treatment=TREATMENTS[2], y=table["accuracy_before_recovery"]),
    ]
    seeds = ["seed", "calibration_seed"]
    return pd.concat(parts).drop_duplicates([*_KEYS, *seeds], keep="last")


def lines(table: pd.DataFrame) -> pd.DataFrame:
    """As ``small_multiples`` takes it."""
    found = _rows(table).groupby(_KEYS, sort=False).agg(**MEANS, y=("y", "mean"), spread=("y", "std"), seeds=("y", "size")).reset_index()
    parts = []
    for model, unit, treatment in itertools.product(table["model"].unique(), UNITS, TREATMENTS):
        part = found[(found["model"] == model) & (found["decomposition"] == unit) & (found["treatment"] == treatment)]
        parts.append(part.assign(panel=f"{named(model)}, {UNITS[unit]}:\n{treatment}"))
    everything = pd.concat(parts, ignore_index=True)
    return everything.assign(name=everything["score"].map(named), thing=everything["score"])


def draw_cited(table: pd.DataFrame, details: pd.DataFrame | None, target: Path) -> tuple[str, list[Path]]:
    """The means as text, and two figures (.png, .pdf): against parameters, and beside it against MACs (``_macs``),
    for units without which a network takes fewer."""
    drawn, stem = lines(table), stem_of(target)
    paths = small_multiples(drawn, [PARAMETERS], stem, "test accuracy (%)", linear=True)
    saving = drawn[drawn.groupby("panel")["macs"].transform("max") > 0]  # zeros that are stored take as long as other weights
    if len(saving):
        paths += small_multiples(saving, [MACS], stem.with_name(f"{stem.name}_macs"), "test accuracy (%)", linear=True)
    return treated(table).to_string(index=False), paths


FIGURE = Figure(
    "cited", collect, draw_cited, None, "The cited scores, a panel for each unit and treatment."
)  # fmt: skip
