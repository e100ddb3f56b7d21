"""Tables of whole networks and of language models, from the files in experiments/results."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from layout import markdown, read


def networks() -> str:
    """One row per network as it comes, at half of the parameters."""
    rows = []
    for r in read("networks").itertuples():
        if r.runs != "yes":
            rows.append([r.network, f"{r.parameters:,.0f}", r.runs, *[""] * 5])
            continue
        said = "" if r.said != r.said else r.said.split("were left alone: ")[-1]
        times = f"{r.time:.2f}"
        rows.append(
            [r.network, f"{r.parameters:,.0f}", f"{100 * r.removed:.1f} %", f"{100 * r.macs_removed:.1f} %", said, r.saves, r.onnx, times]
        )
    header = ["network", "parameters", "removed", "MACs removed", "left alone", "loads again", "onnxruntime agrees", "time"]
    return markdown(header, rows)


def _mean(values: pd.Series, digits: int) -> str:
    text = f"{values.mean():.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {values.std():.{digits}f}"


def language_model() -> str:
    """One row per method: perplexity and divergence at each sparsity, mean and standard deviation over calibration seeds."""
    table = read("language_model")
    table = table[table["sparsity"] > 0]
    sparsities = sorted(table["sparsity"].unique())
    rows = []
    for method, part in table.groupby("method", sort=False):
        cells = []
        for sparsity in sparsities:
            held = part[part["sparsity"] == sparsity]
            cells += [_mean(held["perplexity"], 3), _mean(held["divergence"], 4)]
        rows.append((part[part["sparsity"] == sparsities[-1]]["divergence"].mean(), [str(method), *cells]))
    header = ["method"]
    for sparsity in sparsities:
        header += [f"perplexity at {100 * sparsity:.0f} %", "divergence"]
    return markdown(header, [row for _, row in sorted(rows, key=lambda pair: pair[0])])


def pretrained(name: str) -> str:
    """One row per method: divergence at each sparsity."""
    table = read("pretrained")
    table = table[table["network"] == name]
    sparsities: Sequence[float] = sorted(table["sparsity"].unique())
    rows = []
    for method, part in table.groupby("method", sort=False):
        cells = [_mean(part[part["sparsity"] == sparsity]["divergence"], 4) for sparsity in sparsities]
        seconds = part["seconds_fit"].mean() + part["seconds_compress"].mean()
        rows.append((part["divergence"].sum() / len(part), [str(method), *cells, f"{seconds:.0f}"]))
    header = ["method", *(f"divergence at {100 * sparsity:.0f} %" for sparsity in sparsities), "seconds"]
    return markdown(header, [row for _, row in sorted(rows, key=lambda pair: pair[0])])


def few_examples() -> str:
    """One row per network and number of images: agreement and divergence of each setting, mean and standard deviation over seeds."""
    table = read("few_examples")
    settings = list(dict.fromkeys(table["setting"]))
    rows = []
    for (network, sparsity, images), part in table.groupby(["network", "sparsity", "images"]):
        cells = []
        for setting in settings:
            held = part[part["setting"] == setting]
            cells += [_mean(100 * held["agreement"], 1), _mean(held["divergence"], 4)] if len(held) else ["", ""]
        seeds = part.groupby("setting")["seed"].nunique().min()
        rows.append([str(network), f"{100 * sparsity:.0f} %", str(images), str(seeds), *cells])
    header = ["network", "removed", "images", "seeds"]
    for setting in settings:
        header += [f"agreement (%), {setting}", f"divergence, {setting}"]
    return markdown(header, rows)
