"""Our ALDS against the authors' own code on the same network.

    python experiments/alds_check.py allocation.json table.csv model.checkpoint=FILE dataset.path=FOLDER --keep 0.1 0.05

``allocation.json`` holds, for each share of parameters kept, every layer's groups k and their rank as the authors' code chose
them; ``table.csv`` (columns keep_requested, params_kept, accuracy, accuracy_batchnorm) what it measured, on all test images, with
batch norm re-estimated on 2,000 training images. On the CPU. For each share: the accuracies with their groups and ranks in our layers,
and with our own search at the same budget, and the error level of both (the largest relative error of any layer).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pandas as pd
import torch

from lrp.config.build import compose_job
from lrp.config.parts import make
from lrp.decomposition.base import decompose
from lrp.evaluation import evaluate
from lrp.evidence import Evidence
from lrp.layer.build import build
from lrp.method.alds_search import Allocation, allocation_blocks
from lrp.method.base import as_masks
from lrp.recovery.context import Context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("allocation", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("words", nargs="*", help="as on the command line: model.checkpoint=..., dataset.path=..., threads=2")
    parser.add_argument("--keep", nargs="+", type=float, help="shares of parameters kept (all of the table)")
    args = parser.parse_intermixed_args()
    allocations, theirs = json.loads(args.allocation.read_text()), pd.read_csv(args.table).set_index("keep_requested")
    job = compose_job("model=vgg16", "dataset=cifar10", "method=alds", *args.words)
    if job.threads:
        torch.set_num_threads(job.threads)
    data = job.dataset.load()
    model, _ = job.model.obtain(data, 0, Path(job.cache_dir).expanduser(), torch.device("cpu"), job.estimator)
    images = data.network_input(data.calibration(2000, 0).images, torch.device("cpu"))
    fitted = job.method.fit(Evidence(model, images[:1]))
    search, matrices = fitted.search, fitted.evidence.survey.matrices

    def accuracies(allocation: Allocation) -> list[float]:
        """Before and after batch norm is re-estimated, in per cent."""
        factors = decompose(matrices, allocation_blocks(matrices, allocation))
        pruned = build(model, factors, as_masks(factors, [allocation.rank[factor.block.layer] for factor in factors]))
        found = [evaluate(pruned, data, data.test, job.batch_size).accuracy]
        make("recovery", "batchnorm")(pruned, Context(lambda: images.split(250)))
        return [100 * accuracy for accuracy in (*found, evaluate(pruned, data, data.test, job.batch_size).accuracy)]

    print("kept   authors' code    their groups and ranks here    our search       error level: theirs, ours")
    for keep in args.keep or theirs.index:
        row, chosen = theirs.loc[keep], {entry["layer"]: entry for entry in allocations[str(keep)]["layers"]}
        k, rank = ({name: chosen[name][column] for name in matrices} for column in ("k", "rank_per_group"))
        level = max(search.layers[name].errors[k[name]][rank[name] - 1] for name in matrices if rank[name] is not None)
        rebuilt = accuracies(Allocation(k, rank, level, 0))
        own = search(math.floor(1e6 * (1 - row["params_kept"])) / 1e6)
        found = accuracies(own)
        print(
            f"{keep:<6g} {100 * row['accuracy']:5.2f} {100 * row['accuracy_batchnorm']:5.2f}      {rebuilt[0]:5.2f} {rebuilt[1]:5.2f}"
            f"                    {found[0]:5.2f} {found[1]:5.2f}      {level:.4f} {own.error:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
