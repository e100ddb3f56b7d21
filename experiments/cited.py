"""The scores that the paper cites, on the same network: one figure, how they correlate, and what they cost.

    python experiments/cited.py figure outputs/SWEEP... --table cited.csv --summary cited_summary.csv --out cited.png
    NETWORK="model=resnet20 model.checkpoint=$RESNET dataset=cifar10 dataset.path=$DATA"
    python experiments/cited.py correlation $NETWORK --out cited_correlation.csv
    python experiments/cited.py identity $NETWORK --out cited_identity.csv
    python experiments/cited.py cost $NETWORK --out cited_cost.csv

``figure`` reads the tables of experiment=cited and draws a panel for each unit (singular triplets, filters, weights) and treatment.
``correlation`` compares the scores of singular triplets, pair by pair. ``identity`` compares half the perturbation of 2 sqrt(softmax)
with the curvature along single components, exactly, and with its estimate from random probes. ``cost``: seconds of the processor and
the peak of memory over what the process had before (Linux), each scorer by itself. Words are those of the command line of experiment=cited.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from memory import of_process
from torch import Tensor

from lrp.batches import Batches
from lrp.config.build import compose_job
from lrp.config.parts import make
from lrp.decomposition.base import decompose
from lrp.evidence import Evidence
from lrp.figure.style import save_figure
from lrp.files import write_whole
from lrp.job.calibration import calibration_parts
from lrp.matrices import Components
from lrp.results.collect import collect
from lrp.scorer.curvature import Curvature
from lrp.standin.replace import with_stand_ins

UNITS = {"svd": "singular triplets", "filters": "filters", "entries": "weights"}
TREATMENTS = ("nothing recovered", "batch norm re-estimated", "compensated")
SOFTMAX = "perturbation, softmax"
STYLES = {  # the colour of each score, and the stroke of what it reads: nothing but weights, images, or images with labels
    "perturbation": ("C3", "-"), SOFTMAX: ("C1", "-"), "variance": ("C4", "-"), "curvature": ("C0", ":"), "snip": ("C2", ":"),
    "grasp": ("C5", ":"), "lamp": ("black", "--"), "magnitude": ("C9", "--"), "relative_error": ("C8", "--"), "random": ("C7", "--"),
}  # fmt: skip
PROBES = (8, 32, 128)
SEEDS = ["seed", "calibration_seed"]


# accuracy against sparsity


def treated(table: pd.DataFrame) -> pd.DataFrame:
    """One row per network, unit, score, treatment and sparsity: mean, standard deviation and number of seeds of the accuracy.

    A row with compensation counts as it is before batch norm is re-estimated; the others count before and after it.
    """
    softmax = table["options"].fillna("").str.contains("estimator.output=hellinger")
    table = table.assign(score=table["scorer"].where(~softmax, table["scorer"] + ", softmax"))
    plain = table["compensation"].fillna("none").eq("none")
    again = plain & table["recovery"].eq("batchnorm")
    parts = [
        table[plain].assign(treatment=TREATMENTS[0], y=table["accuracy_before_recovery"]),
        table[again].assign(treatment=TREATMENTS[1], y=table["accuracy"]),
        table[~plain].assign(treatment=TREATMENTS[2], y=table["accuracy_before_recovery"]),
    ]
    rows = pd.concat(parts).drop_duplicates(["model", "decomposition", "score", "treatment", "sparsity", *SEEDS], keep="last")
    found = rows.groupby(["model", "decomposition", "score", "treatment", "sparsity"])["y"].agg(["mean", "std", "size"])
    return found.reset_index()


def draw(table: pd.DataFrame, target: Path) -> list[Path]:
    """A panel for each network, unit and treatment, a line for each score, its name at the line's end."""
    found, dense = treated(table), 100 * table.groupby("model")["accuracy_dense"].first()
    there = set(zip(found["model"], found["decomposition"]))
    lines = [(model, unit) for model, unit in itertools.product(table["model"].unique(), UNITS) if (model, unit) in there]
    figure, axes = plt.subplots(len(lines), 3, figsize=(13, 3.1 * len(lines) + 0.5), sharey=True, squeeze=False)
    for row, (model, unit) in zip(axes, lines):
        part = found[(found["model"] == model) & (found["decomposition"] == unit)]
        for ax, treatment in zip(row, TREATMENTS):
            panel(ax, part[part["treatment"] == treatment], dense[model])
            ax.set_title(f"{model}, {UNITS[unit]}: {treatment}", fontsize=10)
        row[0].set_ylabel("test accuracy (%)")
    for ax in axes[-1]:
        ax.set_xlabel("parameters removed (%)")
    figure.suptitle("Solid lines read images, dotted ones images and labels, dashed ones weights alone", fontsize=11)
    figure.tight_layout()
    return save_figure(figure, target)


def panel(ax: Axes, part: pd.DataFrame, dense: float) -> None:
    """Draw the lines of one panel."""
    ax.axhline(dense, color="grey", linewidth=0.8, linestyle=(0, (1, 3)))
    if part.empty:
        ax.text(0.5, 0.5, "not measured", ha="center", transform=ax.transAxes, color="grey")
        return
    grid = sorted(part["sparsity"].unique())
    place = {sparsity: -np.log2(1 - sparsity) for sparsity in grid}
    ends = []
    for score, line in part.groupby("score"):
        line = line.sort_values("sparsity")
        x, y, spread = line["sparsity"].map(place), 100 * line["mean"], 100 * line["std"].fillna(0)
        colour, stroke = STYLES.get(str(score), ("C6", "-"))
        ax.errorbar(x, y, spread, color=colour, linestyle=stroke, marker="o", markersize=3, linewidth=1.4, capsize=2)
        ends.append(((x.iloc[0], x.iloc[-1]), (y.iloc[0], y.iloc[-1]), str(score), colour))
    edges = min(place.values()), max(place.values())
    width = edges[1] - edges[0] or 1.0
    reached = [[end[1][side] for end in ends if end[0][side] == edges[side]] for side in (0, 1)]
    side = int(
        (len(reached[1]), np.ptp(reached[1])) >= (len(reached[0]), np.ptp(reached[0]))
    )  # names stand where the lines are further apart
    ends.sort(key=lambda end: (end[1][side], end[1][1 - side]))
    low, high, out = 0.0, 97.0, 2 * side - 1
    for (x, y, score, colour), height in zip(ends, spaced([end[1][side] for end in ends], (high - low) / 12.5, low + 2, high - 2)):
        ax.plot([x[side], edges[side] + 0.07 * out * width], [y[side], height], color=colour, linewidth=0.6)
        text, align = score.replace("_", " "), "left" if side else "right"
        ax.text(edges[side] + 0.09 * out * width, height, text, color=colour, fontsize=7.5, va="center", ha=align)
    room = 0.62 * width
    ax.set_xlim(edges[0] - (0.05 * width if side else room), edges[1] + (room if side else 0.05 * width))
    ax.set_ylim(low, high)
    ax.set_xticks(list(place.values()), [f"{100 * sparsity:g}" for sparsity in grid])
    ax.grid(alpha=0.25)


def spaced(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights in the order of ``wanted``, rising, near to them, at least ``gap`` apart and within ``low`` and ``high`` where they fit."""
    found: list[float] = []
    for value in wanted:
        found.append(max(value, low, found[-1] + gap if found else low))
    for i in reversed(range(len(found))):
        limit = high if i == len(found) - 1 else found[i + 1] - gap
        found[i] = min(found[i], limit)
    return found


# the scores themselves


@dataclass(frozen=True)
class Setting:
    """What experiment=cited scores on.

    Attributes:
        job: The job that the words describe.
        model: The dense network.
        inputs: The scoring images with their labels.
        scoring: How many there are.
    """

    job: Any
    model: Any
    inputs: Batches
    scoring: int

    @classmethod
    def of(cls, words: Sequence[str]) -> Setting:
        job = compose_job("experiment=cited", *words)
        if job.threads:
            torch.set_num_threads(job.threads)
        data, device = job.dataset.load(), torch.device("cpu")
        model, _ = job.model.obtain(data, job.seed, Path(job.cache_dir).expanduser(), device, job.estimator)
        images, scored = calibration_parts(data, job.calibration)
        inputs = Batches.of(data.network_input(images.images[: len(scored)], device))
        inputs.labels = images.labels[: len(scored)]
        return cls(job, with_stand_ins(model), inputs, len(scored))

    def evidence(self, output: str | None = None) -> Evidence:
        """Evidence that knows nothing yet; ``output``: in place of the job's."""
        estimator = self.job.estimator if output is None else replace(self.job.estimator, output=output)
        return Evidence(self.model, self.inputs, None, self.scoring).of(estimator, (), 1)

    def components(self, evidence: Evidence, decomposition: str = "svd") -> list[Any]:
        blocks = make("blocking", "none")(evidence.matrices)
        return decompose(evidence.matrices, blocks, make("decomposition", decomposition))

    def row(self) -> dict[str, Any]:
        return {"model": self.job.model.name, "images": self.scoring, "calibration_seed": self.job.calibration.seed}


def correlation(setting: Setting) -> list[dict]:
    """One row per pair of scores of singular triplets."""
    evidence = setting.evidence()
    factors = setting.components(evidence)
    names = ("perturbation", "variance", "curvature", "snip", "grasp", "lamp", "magnitude", "relative_error")
    scores = {name: make("scorer", name)(factors, evidence) for name in names}
    scores[SOFTMAX] = make("scorer", "perturbation")(factors, setting.evidence("hellinger"))
    table = pd.DataFrame({name: torch.cat(list(held)).numpy() for name, held in scores.items()})
    table["layer"] = np.repeat([factor.block.layer for factor in factors], [factor.count for factor in factors])
    rows = []
    for a, b in itertools.combinations(["perturbation", SOFTMAX, *names[1:]], 2):
        within = [part[a].corr(part[b], "spearman") for _, part in table.groupby("layer") if len(part) > 10]
        row = {**setting.row(), "a": a, "b": b, "components": len(table)}
        row |= {"spearman": table[a].corr(table[b], "spearman"), "kendall": table[a].corr(table[b], "kendall")}
        row |= {"within_layers_mean": np.nanmean(within), "within_layers_least": np.nanmin(within), "within_layers_most": np.nanmax(within)}
        rows.append(row)
    return rows


def exact_curvature(factors: Sequence[Components], evidence: Evidence, which: int, component: int) -> float:
    """c^T H c / 2 along one component: a probe through that one alone, which nothing else disturbs."""
    probe = [torch.zeros(factor.count, dtype=torch.float64) for factor in factors]
    probe[which][component] = 1
    found = Curvature().curvatures(factors, evidence, probe)[which][component]
    return float(found * factors[which].energy()[component] / 2)


def identity(setting: Setting) -> list[dict]:
    """One row per component with an exact curvature, and one per number of random probes."""
    evidence = setting.evidence()
    factors = setting.components(evidence)
    softmax = [score / 2 for score in make("scorer", "perturbation")(factors, setting.evidence("hellinger"))]
    rows = []
    for i, factor in enumerate(factors):
        for component in sorted({0, factor.count // 2}):
            curvature = exact_curvature(factors, evidence, i, component)
            place = {"layer": factor.block.layer, "component": component}
            rows.append({**setting.row(), **place, "curvature": curvature, "half_perturbation": float(softmax[i][component])})
    generator, scorer = torch.Generator().manual_seed(setting.job.seed), Curvature()
    total = [torch.zeros(factor.count, dtype=torch.float64) for factor in factors]
    exact = pd.Series(torch.cat(softmax).numpy())
    for count in range(1, max(PROBES) + 1):
        signs = [torch.randint(0, 2, (factor.count,), generator=generator).double() * 2 - 1 for factor in factors]
        for held, found in zip(total, scorer.curvatures(factors, evidence, signs)):
            held += found
        if count in PROBES:
            estimate = torch.cat([factor.energy() * held / (2 * count) for factor, held in zip(factors, total)])
            series = pd.Series(estimate.numpy())
            row = {**setting.row(), "probes": count, "negative": float((estimate < 0).double().mean())}
            rows.append(row | {"spearman": series.corr(exact, "spearman"), "pearson": series.corr(exact)})
    return rows


def cost(setting: Setting, units: Sequence[str]) -> list[dict]:
    """One row per unit and score: seconds of the processor and MiB at the peak. Of curvature two probes are measured and all counted."""
    rows, trim = [], ctypes.CDLL(None).malloc_trim
    for unit in units:
        for name in [name for name in STYLES if name != SOFTMAX]:
            evidence = setting.evidence()
            factors = setting.components(evidence, unit)
            scorer, times = make("scorer", name), 1.0
            if isinstance(scorer, Curvature):
                scorer, times = replace(scorer, probes=2), scorer.probes / 2
            trim(0)  # what the heap keeps of freed memory would hide what is taken next
            before, start = of_process("VmRSS"), time.process_time()
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
            scores: list[Tensor] = scorer(factors, evidence)
            seconds, peak = times * (time.process_time() - start), of_process("VmHWM") - before
            count = sum(len(score) for score in scores)
            rows.append(
                {**setting.row(), "decomposition": unit, "scorer": name, "components": count, "seconds": seconds, "mib": peak / 2**20}
            )
            print(rows[-1], flush=True)
            del scores, factors, evidence
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["figure", "correlation", "identity", "cost"])
    parser.add_argument("words", nargs="*", help="folders or tables of figure; of the others what experiment=cited takes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="where figure writes all rows (.csv)")
    parser.add_argument("--units", nargs="+", choices=list(UNITS), default=list(UNITS), help="of cost (all)")
    parser.add_argument("--summary", type=Path, help="where figure writes the means (.csv)")
    args = parser.parse_intermixed_args()
    if args.part == "figure":
        table = collect([Path(word) for word in args.words]).drop(columns="folder").drop_duplicates()
        for place, held in ((args.table, table), (args.summary, treated(table))):
            if place:
                write_whole(place, lambda path, held=held: held.to_csv(path, index=False))
        print(*draw(table, args.out), sep="\n")
        return
    setting = Setting.of(args.words)
    rows = cost(setting, args.units) if args.part == "cost" else {"correlation": correlation, "identity": identity}[args.part](setting)
    write_whole(args.out, lambda path: pd.DataFrame(rows).to_csv(path, index=False))
    print(pd.DataFrame(rows).to_string())


if __name__ == "__main__":
    main()
