"""Accuracy with every form of a layer, with matrices alone and of rivals, nothing trained, from result tables alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lrp.errors import InputError
from lrp.figure.accuracy import MACS, MEANS, PARAMETERS
from lrp.figure.base import Figure
from lrp.figure.panels import Axis, small_multiples
from lrp.results.collect import collect
from lrp.results.labels import named
from lrp.results.tables import read_table

RIVALS = ("balf", "alds", "input_tucker", "hosvd", "svd_energy")  # those that are not at chance everywhere
OURS = {"forms": "output-aware, every form", "output_aware": "output-aware, matrices alone"}
_TIMED = {"auto": "forms", "matrix": "output_aware"}  # what a table of speeds calls its sets of forms


def usual_images(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Of each line the rows with the number of calibration images that most of its rows have."""
    counts = table.groupby([*keys, "calibration_images"], dropna=False)["sparsity"].size().reset_index(name="rows")
    counts = counts.sort_values("rows", ascending=False, kind="stable").drop_duplicates(keys)
    return table.merge(counts[[*keys, "calibration_images"]], on=[*keys, "calibration_images"])


def lines(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model, line and sparsity: mean, standard deviation and number of seeds.

    ``output_aware`` counts as compensation leaves it; of a rival, which is not compensated, the better of as pruned and batch norm
    re-estimated. Of each line rows with another number of calibration images than most of its rows are left out.
    """
    options = table["options"].fillna("").astype(str)
    compensated = table["compensation"].eq("least_squares")
    ours = table["method"].eq("output_aware") & compensated & table["blocking"].eq("none") & table["exclude"].isna()
    several = options.str.contains("forms=") & ~options.str.contains(r"forms=\['matrix'\]")
    table = table.assign(thing=table["method"].mask(ours & several, "forms"), y=table["accuracy_before_recovery"])
    rivals = ~compensated & table["method"].isin(RIVALS) & table["exclude"].isna()
    best = table[["accuracy", "accuracy_before_recovery"]].max(axis=1)
    table = table.assign(y=table["y"].mask(rivals, best))[ours | rivals]
    table = usual_images(table, ["model", "thing"])
    table = table.drop_duplicates(["model", "thing", "sparsity", "seed", "calibration_seed", "options"], keep="last")
    values = {"mean": ("y", "mean"), "spread": ("y", "std"), "seeds": ("y", "size")}
    found = table.groupby(["model", "thing", "sparsity"], sort=False).agg(**MEANS, **values).reset_index()
    found = found.rename(columns={"mean": "y"})
    found = found.assign(panel=found["model"].map(named), name=found["thing"].map(lambda thing: OURS.get(thing, named(thing))))
    order = {thing: at for at, thing in enumerate([*OURS, *RIVALS])}
    return found.sort_values("thing", key=lambda column: column.map(order), kind="stable").sort_values(
        "panel", key=lambda column: -column.map(found["panel"].value_counts()), kind="stable"
    )


def with_times(found: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """The lines with ``faster``: how many times faster than the dense network a network of the same set of forms and share removed was,
    ranks as pruned, with the most threads and images at a time."""
    times = times[times["round_to"] == 1]
    times = times[(times["threads"] == times["threads"].max()) & (times["batch"] == times["batch"].max())]
    times = times.assign(thing=times["forms"].map(_TIMED), model=times["network"]).groupby(["model", "thing", "sparsity"])["speedup"].max()
    return found.merge(times.rename("faster").reset_index(), how="left", on=["model", "thing", "sparsity"])


def draw_forms(table: pd.DataFrame, details: pd.DataFrame | None, target: Path, times: Path | None = None) -> tuple[str, list[Path]]:
    """The table as text, and the figure (.png, .pdf): a panel for each network.

    Raises:
        InputError: Where nothing of it is in the tables.
    """
    found = lines(table)
    if found.empty:
        raise InputError("the tables hold neither compensated rows of method=output_aware nor rows of its rivals")
    axes = [PARAMETERS, MACS]
    if times is not None:
        timed = read_table(times)
        found, most = with_times(found, timed), timed[["batch", "threads"]].max()
        axes.append(Axis("faster", f"times faster ({most['batch']} images, {most['threads']} threads)", share=False))
    said = f"{', '.join(map(named, table['dataset'].unique()))}, nothing trained"
    wide = found.pivot_table(index=["panel", "name"], columns="sparsity", values="y", sort=False).sort_index(axis=1)
    text = (100 * wide).map(lambda value: "" if value != value else f"{value:.2f}").rename_axis(index=[None, None]).to_string()
    return text, small_multiples(found, axes, target, "test accuracy (%)", said)


FIGURE = Figure(
    "forms", collect, draw_forms, None, "Accuracy with every form of a layer, with matrices alone and of rivals, nothing trained.",
    {"--times": {"type": Path, "help": "a table of speeds (speed_forms_summary.csv), for a panel of them"}},
)  # fmt: skip
