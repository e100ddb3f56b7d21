"""Which set of forms is best: divergence from the dense network and accuracy on validation images, for several sets and sparsities.

    python experiments/form_sets.py --model resnet20 --checkpoint $RESNET --data $DATA --sparsity 0.5 0.7 --out form_sets.csv

The network is scored once; every set chooses among the same candidates. Rows are added to the table as they come.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows
from torch import nn

from lrp.batches import Batches
from lrp.config.build import compose_job
from lrp.dataset.base import Data
from lrp.estimator.base import Estimator
from lrp.estimator.divergence import divergence
from lrp.evaluation import evaluate
from lrp.evidence import Evidence
from lrp.form.known import FORMS

SETS = [
    "matrix", "matrix tucker2", "matrix spatial", "matrix tucker2 spatial", "matrix tucker2 spatial pivoted tucker2_pivoted",
    " ".join(FORMS),
]  # fmt: skip
WORDS = [
    "method=output_aware", "dataset=cifar10", "tracker=none", "estimator.output=hellinger", "estimator.temperature=4",
    "scorer=noise_to_signal", "calibration.scoring_images=256",
]  # fmt: skip


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments of the studies of forms."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sparsity", type=float, nargs="+", required=True)
    parser.add_argument("--depth", type=float, default=0.0, help="scorer.depth")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=48000)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def words(args: argparse.Namespace) -> list[str]:
    """What these arguments are on the command line of a job."""
    return [
        f"model={args.model}", f"model.checkpoint={args.checkpoint}", f"dataset.path={args.data}", f"calibration.images={args.images}",
        f"calibration.samples={args.samples}",
    ]  # fmt: skip


def begin(job: Any, count: int) -> tuple[Data, Evidence]:
    """The data set of a job, and its network in eval mode with ``count`` calibration images."""
    data = job.dataset.load()
    model, _ = job.model.obtain(data, 0, Path("outputs/cache"), torch.device("cpu"), job.estimator)
    images = data.network_input(data.calibration(count, 0).images, torch.device("cpu"))
    return data, Evidence(model.eval(), Batches.of(images), None, 256)


def measured(dense: nn.Module, small: nn.Module, data: Data, estimator: Estimator) -> dict[str, float]:
    """Accuracy, and the mean Kullback-Leibler divergence of the softmax outputs from the dense network's, on validation images."""
    images = Batches.of(data.network_input(data.validation.images, torch.device("cpu")))
    accuracy = evaluate(small, data, data.validation, 250).accuracy
    return {"accuracy": accuracy, "divergence": divergence(dense, small, images, estimator)}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sets", nargs="+", default=SETS, help="names of forms, divided by spaces")
    args = parser.parse_args()
    torch.set_num_threads(1)
    named = [name for name in FORMS if any(name in each.split() for each in args.sets)]
    job = compose_job(
        *WORDS, *words(args), f"forms=[{','.join(named)}]", f"scorer.depth={args.depth}",
    )  # fmt: skip
    data, evidence = begin(job, args.images)
    fitted: Any = job.method.fit(evidence)
    rows = KeptRows(args.out)
    for sparsity in args.sparsity:
        for names in args.sets:
            one = copy.copy(fitted)
            one.choices = {layer: [c for c in held if c.form in names.split()] for layer, held in fitted.choices.items()}
            plan = one.plan(sparsity)
            small, seconds = one.compress(plan)
            sizes = {"sparsity_params": one.sizes(small, plan)["sparsity_params"], "sparsity_macs": one.sizes(small, plan)["sparsity_macs"]}
            row = {"model": args.model, "sparsity": sparsity, "forms": names, "images": args.images, **sizes}
            row |= {**measured(evidence.model, small, data, job.estimator), "seconds_compensate": seconds}
            print(row, flush=True)
            rows.add([row])


if __name__ == "__main__":
    main()
