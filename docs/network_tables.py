"""Tables of whole networks and of language models, from the files in experiments/results."""

# ruff: noqa: E501  (sentences that become lines of pages)

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from layout import markdown, paragraph, read, removed

from lrp.figure.growth import growth

OURS = "output_aware"


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


def tied() -> str:
    """One row per share removed: divergence with the tied weight compressed, and with it left alone."""
    table = read("tied")
    rows = []
    for sparsity, part in table.groupby("sparsity"):
        both = {tie: held for tie, held in part.groupby("tie")}
        cells = [_mean(both[tie]["divergence"], 5) if tie in both else "not reached" for tie in ("compressed", "left alone")]
        rows.append([f"{100 * float(str(sparsity)):.0f} %", *cells, f"{both['compressed']['rank'].mean():.0f}"])
    return markdown(["removed", "divergence, tie compressed", "tie left alone", "rank of the tie, of 64"], rows)


def tied_said() -> str:
    wide = read("tied").groupby(["sparsity", "tie"])["divergence"].mean().unstack()
    times, less = (wide["left alone"] / wide["compressed"]).loc[[0.4, 0.6]], 1 - wide.loc[0.2, "left alone"] / wide.loc[0.2, "compressed"]
    return paragraph(
        f"At 40 and 60 % it pays: left alone, the tie costs {times[0.4]:.1f} and {times[0.6]:.0f} times the divergence. At 20 % leaving it alone (`exclude`) is better by",
        f"{100 * less:.0f} % of a very small divergence, perhaps since the other layers are refitted to what they read in the pruned network, and the tie to what its layers read in",
        "the dense one. At 60 % the other layers hardly have as much: eleven of them are emptied.",
    )


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
    "decompose": "decompose", "score": "score", "inputs": "input sides", "build": "build", "statistics": "statistics",
    "compensate": "compensate",
}  # fmt: skip


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
    stage = max(STAGES, key=lambda stage: r[f"peak_{stage}_gib"])
    return STAGES[stage] if r[f"peak_{stage}_gib"] > 0.95 * r["peak_gib"] else "between them"


def scale_growth() -> str:
    """Exponents of growth, fitted on logarithms, of the chains of Linear layers."""
    rows = [
        [row["with"], row["held"], f"{row['from']:,.0f} to {row['to']:,.0f}", f"{row['peak_gib']:.2f}", f"{row['seconds']:.2f}"]
        for row in growth(read("scale")).to_dict("records")
    ]
    return markdown(["growth with", "at", "from, to", "exponent of the peak", "of the seconds"], rows)


def depth() -> str:
    """One row for each width and number of blocks: peak memory and processor time, block by block and whole."""
    table, rows = read("depth"), []
    for (width, blocks), part in table[table["forms"] == "matrix"].groupby(["width", "blocks"]):
        row = [str(width), str(blocks), f"{part['weights_mib'].iloc[0]:.0f}"]
        for way in ("blocks", "whole"):
            found = part[part["way"] == way]
            row += [f"{found[what].iloc[0]:.0f}" if len(found) else "" for what in ("peak_mib", "cpu_seconds")]
        rows.append(row)
    return markdown(
        ["width", "blocks", "weights (MiB)", "by blocks: peak (MiB)", "processor seconds", "whole: peak (MiB)", "processor seconds"], rows
    )


RATES = {"this machine": None, "1 teraflop/s": 1.0, "20 teraflop/s": 20.0, "8 times 20 teraflop/s": 160.0}  # of a GPU, or of 8


def plan() -> str:
    """What was planned and measured for the stacks, and what is planned for a network of seven billion parameters."""
    table, rows = read("plan"), []
    for r in table.itertuples():
        known = r.seconds == r.seconds
        operations = r.single + r.double
        rows.append(
            [
                f"{r.network}, {r.blocks} blocks", f"{r.params / 1e6:,.0f}", f"{r.single / 1e12:,.1f}", f"{r.double / 1e12:,.1f}",
                f"{r.memory / 2**30:.2f}", f"{r.peak / 2**30:.2f}" if known else "", f"{r.disk / 2**30:,.2f}",
                f"{r.seconds:,.0f}" if known else "", f"{operations / r.seconds / 1e9:.0f}" if known else "",
            ]
        )  # fmt: skip
    header = [
        "network",
        "million parameters",
        "10¹² operations, single",
        "double",
        "memory (GiB), planned",
        "measured",
        "disk (GiB)",
        "seconds",
    ]
    return markdown([*header, "10⁹ operations/s"], rows)


def plan_hours() -> str:
    """The hours that the last network of the plan takes at some rates of operations."""
    table = read("plan")
    known, last = table.dropna(subset=["seconds"]), table.iloc[-1]
    here = float(((known["single"] + known["double"]) / known["seconds"]).median()) / 1e12
    operations = (last["single"] + last["double"]) / 1e12
    rows = [[name, f"{operations / (rate or here) / 3600:,.1f}"] for name, rate in RATES.items()]
    return markdown(["rate", f"hours for {last['network']}"], rows)


def processes() -> str:
    """Medians of the seconds of each number of processes, and how many times faster than one that is."""
    medians = read("processes").groupby(["what", "processes"])["seconds"].median()
    rows = [
        [what, str(count), f"{seconds:.1f}", f"{medians[what, 1] / seconds:.2f}"] for (what, count), seconds in medians.items()
    ]  # fmt: skip
    return markdown(["", "processes", "seconds", "times faster"], rows)


def _pretrained() -> pd.DataFrame:
    table = read("pretrained")
    return table[table["seed"] < 100] if len(table) else table  # seeds from 100 on are trials


def pretrained() -> str:
    """One row per pretrained network and sparsity: ours, and of the others the one with the least divergence."""
    rows = []
    for (network, sparsity), part in _pretrained().groupby(["network", "sparsity"], sort=False):
        ours, others = part[part["method"] == OURS], part[(part["method"] != OURS) & part["divergence"].notna()]
        if not len(ours) or not len(others):
            continue
        means = others.groupby("method")["divergence"].mean()
        best = others[others["method"] == means.idxmin()]
        held = [_mean(ours[name], digits) for name, digits in (("divergence", 4), ("divergence_seen", 4), ("agreement", 3))]
        rival = [f"{means.idxmin()}", _mean(best["divergence"], 4), _mean(best["divergence_seen"], 4), _mean(best["agreement"], 3)]
        rows.append([f"{network}", f"{100 * float(str(sparsity)):.0f} %", *held, *rival, f"{len(ours)}"])
    header = ["network", "removed", OURS, "seen", "agreement", "best rival", "divergence", "seen", "agreement", "seeds"]
    return markdown(header, rows)


def pretrained_said() -> str:
    """In how many rows ours loses least, and how much more is lost on inputs that were not calibrated on."""
    table = _pretrained().dropna(subset=["divergence"])
    means = table.groupby(["network", "sparsity", "method"])[["divergence", "divergence_seen"]].mean()
    lost, rivals = means["divergence"].xs(OURS, level="method"), means["divergence"].drop(OURS, level="method")
    least, behind = rivals.groupby(["network", "sparsity"]).min(), []
    for (network, sparsity), value in lost.items():
        if value > least[network, sparsity]:
            ahead = rivals[network, sparsity].idxmin()
            behind.append(
                f"`{network}` at {removed(sparsity)}, where `{ahead}` loses {100 * (1 - least[network, sparsity] / value):.1f} % less"
            )
    ratio = means["divergence"] / means["divergence_seen"]
    fitted = ratio.xs(OURS, level="method").groupby("network").mean()
    told = ", ".join(f"{value:.1f} times on `{name}`" for name, value in fitted.items())
    seeds = ", ".join(f"{count} of `{name}`" for name, count in table.groupby("network", sort=False)["seed"].nunique().items())
    return paragraph(
        f"Seeds that were run: {seeds}. `output_aware` loses least in {len(lost) - len(behind)} of {len(lost)} rows"
        + (f"; not in {' and '.join(behind)}." if behind else "."),
        f"It fits its examples: it loses more on the test inputs than on those that it saw, {told} on average; more examples make the gap smaller.",
    )


def pretrained_all() -> str:
    """One row per pretrained network and method: divergence at each sparsity, and what the methods refuse."""
    table = _pretrained()
    sparsities: Sequence[float] = sorted(table["sparsity"].unique())
    rows = []
    for network, of_network in table.groupby("network", sort=False):
        found = []
        for method, part in of_network.groupby("method", sort=False):
            cells = []
            for sparsity in sparsities:
                held = part[(part["sparsity"] == sparsity) & part["divergence"].notna()]
                refused = [] if "refused" not in part else part["refused"].dropna().unique()
                cells.append(_mean(held["divergence"], 4) if len(held) else f"refused: {refused[0]}" if len(refused) else "")
            last = part[(part["sparsity"] == sparsities[-1]) & part["divergence"].notna()]
            more = [_mean(last["divergence_seen"], 4), _mean(last["agreement"], 3)] if len(last) else ["", ""]
            seconds = (part["seconds_fit"] + part["seconds_compress"]).mean()
            found.append((part["divergence"].mean(), [f"{network}", f"{method}", *cells, *more, f"{seconds:.0f}"]))
        rows += [row for _, row in sorted(found, key=lambda pair: pair[0])]
    last = f"{100 * sparsities[-1]:.0f} %"
    header = [
        "network",
        "method",
        *(f"divergence at {100 * s:.0f} %" for s in sparsities),
        f"seen, {last}",
        f"agreement, {last}",
        "seconds",
    ]
    return markdown(header, rows)


def few_examples(settings: Sequence[str]) -> str:
    """One row per network and number of images: agreement and divergence of each setting, mean and standard deviation over seeds."""
    table = read("few_examples").query("setting in @settings")
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


def few_views_said() -> str:
    """What views bring, seed by seed, and what as many images bring."""
    table = read("few_examples").query("network == 'efficientnet-lite0'")
    wide = table.pivot_table(index=["images", "seed"], columns="setting", values=["agreement", "divergence"])
    both = wide.dropna(subset=[("agreement", "one view"), ("agreement", "8 views")])
    change = {what: both[what, "8 views"] - both[what, "one view"] for what in ("agreement", "divergence")}
    many = table[(table["setting"] == "one view") & (table["images"] > both.index.get_level_values("images").max())]
    seeds = f"{len(both)} seed{'s' * (len(both) > 1)}"
    told = f"Eight views of each image change the agreement by {_mean(100 * change['agreement'], 1)} points and the divergence by"
    more = "".join(
        f" {r.images:,} images, one view of each, have {100 * r.agreement:.1f} % and {r.divergence:.4f}." for r in many.itertuples()
    )
    return paragraph(told, f"{_mean(change['divergence'], 4)} ({seeds}).{more}")
