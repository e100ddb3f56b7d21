"""The charts of a report, as Vega-Lite specifications with their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lrp.figure.accuracy import average_over_seeds
from lrp.figure.palette import COLOURS

STROKES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
MANY = 6  # lines in one panel
POINTS = 60  # of a spectrum
X = {  # column: (title, what the value is)
    "sparsity_params": "share of the parameters removed",
    "sparsity_macs": "share of the multiply-accumulates removed",
    "latency_1": "milliseconds of one example",
    "latency_64": "milliseconds of 64 examples",
}
Y = {"accuracy": "accuracy", "divergence": "divergence from the dense network (nats)"}


def curves(table: pd.DataFrame, x: str) -> dict[str, Any] | None:
    """What is left of the network against a column ``x`` of ``X``; None where no row knows it."""
    y = "accuracy" if table["accuracy"].notna().any() else "divergence"
    if x not in table or y not in table or table[x].isna().all():
        return None
    lines = average_over_seeds(table, y)
    if x != "sparsity_params":
        places = average_over_seeds(table, x)[["line", "sparsity", "y"]].rename(columns={"y": "place"})
        lines = lines.merge(places, on=["line", "sparsity"])
    else:
        lines = lines.assign(place=lines["x"])
    panels = lines["blocking"].nunique() > 1 and lines["line"].nunique() > MANY
    lines["series"] = [line.replace(f", {b}", "", 1) if panels and b else line for line, b in zip(lines["line"], lines["blocking"])]
    names = list(dict.fromkeys(lines["series"]))
    rows = [
        {
            "x": round(row.place, 5), "y": round(row.y, 5), "low": round(row.y - spread, 5), "high": round(row.y + spread, 5),
            "line": row.series, "panel": row.blocking or "no blocks", "sparsity": row.sparsity, "seeds": row.seeds,
        }
        for row in lines.itertuples()
        for spread in [0.0 if pd.isna(row.spread) else row.spread]
    ]  # fmt: skip
    scale = {"domain": names, "range": [COLOURS[i % len(COLOURS)] for i in range(len(names))]}
    dash = {"domain": names, "range": [STROKES[i // len(COLOURS) % len(STROKES)] for i in range(len(names))]}
    shown: dict[str, Any] = {"format": ".1%"} if y == "accuracy" else {}
    legend = {"title": None, "orient": "bottom", "columns": 2, "labelLimit": 420}
    colour = {"field": "line", "type": "nominal", "scale": scale, "legend": legend}
    place = {"field": "x", "type": "quantitative", "title": X[x], **({"axis": {"format": "%"}} if x.startswith("sparsity") else {})}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "line", "point": {"size": 28}},
            "encoding": {
                "x": place,
                "y": {"field": "y", "type": "quantitative", "title": Y[y], "axis": shown},
                "color": colour,
                "strokeDash": {"field": "line", "type": "nominal", "scale": dash, "legend": legend},
                "order": {"field": "sparsity"},
                "tooltip": [
                    {"field": "line"}, {"field": "sparsity", "title": "asked for"}, {"field": "x", "title": X[x], "format": ".4"},
                    {"field": "y", "title": y, **shown}, {"field": "seeds"},
                ],
            },
        }
    ]  # fmt: skip
    if lines["seeds"].max() > 1:
        ends = {"y": {"field": "low", "type": "quantitative", "title": Y[y]}, "y2": {"field": "high"}}
        layers.append({"mark": {"type": "rule", "opacity": 0.6}, "encoding": {"x": place, **ends, "color": colour}})
    if y == "accuracy" and lines["dense"].nunique() == 1:
        dense = {"datum": round(float(lines["dense"].iloc[0]), 5)}
        layers.append({"mark": {"type": "rule", "strokeDash": [1, 3], "color": "grey"}, "encoding": {"y": dense}})
    spec: dict[str, Any] = {"data": {"values": rows}, "description": f"{Y[y]} against the {X[x]}, a line for each setting"}
    size = {"width": 300, "height": 260} if panels else {"width": 620, "height": 340}
    if panels:
        return {**spec, "facet": {"field": "panel", "title": None}, "columns": 3, "spec": {**size, "layer": layers}}
    return {**spec, **size, "layer": layers}


def kept_ranks(layers: pd.DataFrame) -> dict[str, Any]:
    """The share of each layer's rank that is kept, by sparsity; a list chooses the job. ``layers``: the tables of jobs, with ``job``."""
    sums = layers.groupby(["job", "sparsity", "layer"], sort=False)[["kept", "full"]].sum().reset_index()
    rows = [
        {
            "job": r.job,
            "sparsity": r.sparsity,
            "layer": r.layer,
            "share": round(r.kept / max(r.full, 1), 4),
            "kept": f"{r.kept:g} of {r.full:g}",
        }
        for r in sums.itertuples()
    ]
    jobs, names = list(dict.fromkeys(sums["job"])), list(dict.fromkeys(sums["layer"]))
    return {
        "data": {"values": rows},
        "description": "share of the rank of each layer that is kept, by sparsity",
        "params": [_choice("job", jobs)],
        "transform": [{"filter": "datum.job == job"}],
        "width": {"step": 44},
        "height": {"step": 16},
        "mark": "rect",
        "encoding": {
            "x": {"field": "sparsity", "type": "ordinal", "title": "share removed, asked for"},
            "y": {"field": "layer", "type": "nominal", "sort": names, "title": None},
            "color": {"field": "share", "type": "quantitative", "scale": {"scheme": "viridis", "domain": [0, 1]}, "title": "share kept"},
            "tooltip": [{"field": "layer"}, {"field": "kept", "title": "components"}, {"field": "share", "format": ".1%"}],
        },
    }


def spectra(scores: pd.DataFrame) -> dict[str, Any]:
    """The singular values of each layer over the largest of it, by their share of the rank. ``scores``: of one job."""
    rows = []
    for layer, part in scores.groupby("layer", sort=False):
        values = part["singular_value"].sort_values(ascending=False).to_numpy()
        top, count = float(values[0]) or 1.0, len(values)
        chosen = sorted({round(i * (count - 1) / (POINTS - 1)) for i in range(POINTS)}) if count > POINTS else range(count)
        rows += [
            {"layer": layer, "component": i + 1, "share": round((i + 1) / count, 4), "value": round(float(values[i]) / top, 5)}
            for i in chosen
        ]
    names = list(dict.fromkeys(scores["layer"]))
    return {
        "data": {"values": rows},
        "description": "singular values of each layer over its largest",
        "width": 620,
        "height": 300,
        "mark": {"type": "line"},
        "encoding": {
            "x": {"field": "share", "type": "quantitative", "title": "share of the components", "axis": {"format": "%"}},
            "y": {"field": "value", "type": "quantitative", "title": "singular value over the layer's largest"},
            "color": {
                "field": "layer", "type": "ordinal", "sort": names, "scale": {"scheme": "viridis"},
                "legend": {"title": None, "labelLimit": 160, "symbolLimit": 24},
            },
            "tooltip": [{"field": "layer"}, {"field": "component"}, {"field": "value"}],
        },
    }  # fmt: skip


def stages(table: pd.DataFrame, jobs: Mapping[str, str]) -> dict[str, Any] | None:
    """Seconds of each stage: what is done once for all sparsities, and the mean of what is done for each. ``jobs``: of each folder."""
    columns = [name for name in table if name.startswith("seconds_") and table[name].notna().any()]
    means = table.groupby("folder", sort=False)[columns].mean()
    rows = [
        {"job": jobs[str(folder)], "stage": name.removeprefix("seconds_"), "seconds": round(float(value), 3), "order": at}
        for folder, row in means.iterrows()
        for at, (name, value) in enumerate(row.items())
        if value == value and value > 0
    ]
    if not rows:
        return None
    names = [name.removeprefix("seconds_") for name in columns]
    colours = {"domain": names, "range": list(COLOURS[: len(names)])}
    return {
        "data": {"values": rows},
        "description": "seconds of each stage",
        "width": 620,
        "height": {"step": 20},
        "mark": "bar",
        "encoding": {
            "y": {
                "field": "job",
                "type": "nominal",
                "sort": list(dict.fromkeys(jobs.values())),
                "title": None,
                "axis": {"labelLimit": 320},
            },
            "x": {"field": "seconds", "type": "quantitative", "stack": "zero"},
            "color": {"field": "stage", "type": "nominal", "scale": colours, "legend": {"title": None, "orient": "bottom"}},
            "order": {"field": "order"},
            "tooltip": [{"field": "job"}, {"field": "stage"}, {"field": "seconds"}],
        },
    }


def _choice(name: str, values: Sequence[str]) -> dict[str, Any]:
    return {"name": name, "value": values[0], "bind": {"input": "select", "options": list(values), "name": f"{name}: "}}
