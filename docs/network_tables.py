"""Tables of whole networks and of language models, from the files in experiments/results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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


STAGES = {
    "decompose": "decompose",
    "score": "score",
    "inputs": "input sides",
    "build": "build",
    "statistics": "statistics",
    "compensate": "compensate",
}


def scale() -> str:
    """One row per measurement: memory and seconds of lrp.compress, and the share of them of each stage."""
    rows = []
    for _, r in read("scale").sort_values(["parameters", "network", "size", "examples"]).iterrows():
        shares = [f"{100 * r[f'seconds_{stage}'] / r['seconds']:.0f} %" for stage in STAGES]
        rows.append(
            [
                f"{r['network']}, {r['size']:.0f}", f"{r['parameters'] / 1e6:.1f}", f"{r['examples']:.0f}", f"{r['peak_gib']:.2f}",
                f"{r['peak_gib'] / r['weights_gib']:.1f}", _largest(r), f"{r['seconds']:.0f}", *shares,
                f"{r['forwards']:.0f} + {r['backwards']:.0f}",
            ]
        )  # fmt: skip
    header = ["network, size", "million parameters", "examples", "peak (GiB)", "times the weights", "in", "seconds", *STAGES.values()]
    return markdown([*header, "passes"], rows)


def _largest(r: pd.Series) -> str:
    return STAGES.get(stage := max(STAGES, key=lambda stage: r[f"peak_{stage}_gib"]), stage)


def scale_growth() -> str:
    """Exponents of growth, fitted on logarithms: with the examples of each network, and with the parameters of the chain."""
    table, rows = read("scale"), []
    for (network, size), part in table.groupby(["network", "size"], sort=False):
        if len(part) > 1:
            rows.append([f"examples, {network}, {size}", *(f"{_exponent(part['examples'], part[what]):.2f}" for what in MEASURED)])
    for examples, part in table[table["network"] == "chain"].groupby("examples"):
        if len(part) > 1:
            name = f"parameters, chain, {examples} examples"
            rows.append([name, *(f"{_exponent(part['parameters'], part[what]):.2f}" for what in MEASURED)])
    return markdown(["growth with", "exponent of the peak", "of the seconds"], rows)


MEASURED = ("peak_gib", "seconds")


def _exponent(x: pd.Series, y: pd.Series) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


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
