"""The scores that the paper cites, on the same network: one figure, how they correlate, and what they cost.

    python experiments/cited.py figure outputs/SWEEP... --table cited.csv --summary cited_summary.csv --out cited.png
    NETWORK="model=resnet20 model.checkpoint=$RESNET dataset=cifar10 dataset.path=$DATA"
    python experiments/cited.py correlation $NETWORK --out cited_correlation.csv
    python experiments/cited.py identity $NETWORK --out cited_identity.csv
    python experiments/cited.py cost $NETWORK --out cited_cost.csv

``figure`` reads the tables of experiment=cited and draws a panel for each unit (singular triplets, filters, weights) and treatment
(``lrp figure cited``), against parameters and, beside it, against MACs.
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
from memory import of_process
from torch import Tensor

from lrp.batches import Batches
from lrp.config.build import compose_job
from lrp.config.parts import make
from lrp.decomposition.base import decompose
from lrp.evidence import Evidence
from lrp.figure.cited import SOFTMAX, UNITS, draw_cited, treated
from lrp.files import write_whole
from lrp.job.calibration import calibration_parts
from lrp.matrices import Components
from lrp.results.collect import collect
from lrp.scorer.curvature import Curvature
from lrp.standin.replace import with_stand_ins

SCORERS = ("perturbation", "variance", "curvature", "snip", "grasp", "lamp", "magnitude", "relative_error", "random")
PROBES = (8, 32, 128)


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
        for name in SCORERS:
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
        print(*draw_cited(table, None, args.out)[1], sep="\n")
        return
    setting = Setting.of(args.words)
    rows = cost(setting, args.units) if args.part == "cost" else {"correlation": correlation, "identity": identity}[args.part](setting)
    write_whole(args.out, lambda path: pd.DataFrame(rows).to_csv(path, index=False))
    print(pd.DataFrame(rows).to_string())


if __name__ == "__main__":
    main()
