"""Whether a network compressed to a share of its time is as fast as predicted: the whole network, dense and compressed in alternation.

    python experiments/time_budget.py --model resnet20 --checkpoint $RESNET --data $DATA --sparsity 0.3 0.5 --out time_budget.csv

One thread; the shortest time of each counts, of the processor's time that the thread was given. Batch norm is fused, and nothing is
compensated: times do not depend on values.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from form_sets import begin

import lrp
from lrp.config.build import compose_job
from lrp.cost.timing import alternate, repeat_to
from lrp.files import write_whole


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sparsity", type=float, nargs="+", required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    job = compose_job(
        "method=output_aware", "dataset=cifar10", "tracker=none", "budget=milliseconds", "selection=lagrangian",
        f"selection.batch_size={args.batch}",
        "calibration.images=128", "method.parts.compensation=none", f"model={args.model}", f"model.checkpoint={args.checkpoint}",
        f"dataset.path={args.data}",
    )  # fmt: skip
    _, evidence = begin(job, 128)
    fitted: Any = job.method.fit(evidence)
    x = repeat_to(torch.randn(1, 3, 32, 32), args.batch)
    rows = []
    for sparsity in args.sparsity:
        fitted.clock.known.update({key: type(known)(known.dense, known.terms) for key, known in fitted.clock.known.items()})
        chosen = fitted._chosen(sparsity)
        before = fitted._milliseconds(chosen)
        plan = fitted.plan(sparsity)
        small = lrp.fuse(plan.build().eval())
        with torch.inference_mode():
            dense, after = alternate([partial(lrp.fuse(evidence.model), x), partial(small, x)], x.device, seconds=20, most=60, own=True)
        whole = 1e3 * dense.least
        taken, layers = plan.milliseconds
        rows.append({
            "model": args.model, "batch": args.batch, "sparsity": sparsity, "milliseconds": whole, "layers_milliseconds": layers,
            "predicted_once": (whole - layers + before[0]) / whole, "predicted": (whole - layers + taken) / whole,
            "measured": after.least / dense.least, "sparsity_params": 1 - plan.params / fitted._params(),
        })  # fmt: skip
        print(rows[-1], flush=True)
        write_whole(args.out, lambda path: pd.DataFrame(rows).to_csv(path, index=False))


if __name__ == "__main__":
    main()
