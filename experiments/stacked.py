"""The authors' fold beside the blockings: their public code reshapes a convolution's weight (C_out, C_in, kh, kw) to (C_in kh kw, C_out)
without a transpose, so that a row holds pieces of filters that lie one after the other.

    python experiments/stacked.py --checkpoint $RESNET --data $DATA --out experiments/results/stacked.csv

Where C_out divides C_in kh kw the pieces of all filters, each C_out long, are the rows: square blocks of the usual matrix one below the
other, which share their right singular vectors. A component of it is no rank-one change of the usual matrix, so a network of such
components is here the dense one with other weights; parameters are counted as r (C_in kh kw + C_out). Exact scores, the budget in
parameters, nothing refitted; batch norm re-estimated in the second column of accuracies. Rows that the table has are not computed again.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows
from torch import Tensor, nn

import lrp
from lrp.batches import Batches
from lrp.config.build import compose_job
from lrp.config.parts import make
from lrp.cost.costs import make_costs
from lrp.evaluation import evaluate
from lrp.layer.build import layer_matrices
from lrp.matrices import Block
from lrp.recovery.context import Context

BLOCKINGS = ("none", "alds", "square")
SCORERS = ("perturbation", "magnitude")


def stacked(model: nn.Module) -> tuple[list[Block], dict[str, tuple[Tensor, Tensor]]]:
    """Of each layer the block that stands for its stacked matrix, and U (rows, R) and V (R, columns) whose product it is."""
    blocks, factors = [], {}
    for name, matrix in layer_matrices(model).items():
        weight = matrix.weight.double()
        U, S, V = torch.linalg.svd(weight.reshape(-1, len(weight)), full_matrices=False)
        blocks.append(Block(name, 0, 0, weight.shape[1], 0, weight.shape[0]))
        factors[name] = U, S[:, None] * V
    return blocks, factors


@torch.no_grad()
def keep_alone(model: nn.Module, name: str, factors: tuple[Tensor, Tensor], keep: Tensor) -> Tensor:
    """Give a layer the components of ``keep`` alone; what it had."""
    layer: Any = model.get_submodule(name)
    had = layer.weight.clone()
    layer.weight.copy_((factors[0][:, keep] @ factors[1][keep]).view_as(layer.weight))
    return had


@torch.no_grad()
def perturbations(model: nn.Module, factors: dict[str, tuple[Tensor, Tensor]], images: Tensor) -> list[Tensor]:
    """E ||y - y_b||^2 of every component."""
    y, found = model(images), []
    for name, parts in factors.items():
        layer: Any = model.get_submodule(name)
        scores = torch.zeros(len(parts[1]), dtype=torch.float64)
        for i in range(len(scores)):
            had = keep_alone(model, name, parts, torch.arange(len(scores)) != i)
            scores[i] = (model(images) - y).double().square().sum(1).mean()
            layer.weight.copy_(had)
        found.append(scores)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="of a ResNet-20")
    parser.add_argument("--data", required=True, help="CIFAR-10")
    parser.add_argument("--images", type=int, default=64, help="that scores look at")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    parser.add_argument("--scorers", nargs="+", default=["perturbation"], choices=SCORERS)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    words = ["model=resnet20", f"model.checkpoint={args.checkpoint}", "dataset=cifar10", f"dataset.path={args.data}", "tracker=none"]
    job = compose_job(*words)
    data, device = job.dataset.load(), torch.device("cpu")
    dense, _ = job.model.obtain(data, 0, Path("outputs/cache"), device, job.estimator)
    dense.eval()
    inputs = data.network_input(data.calibration(2000, 0).images, device)
    images, recovery = inputs[: args.images], make("recovery", "batchnorm")
    rows = KeptRows(args.out)

    def missing(blocking: str, scorer: str) -> list[float]:
        return [sparsity for sparsity in args.sparsities if not rows.has(blocking=blocking, scorer=scorer, sparsity=sparsity)]

    def measured(blocking: str, scorer: str, sparsity: float, removed: float, network: nn.Module) -> None:
        before = evaluate(network, data, data.test, 250).accuracy
        recovery(network, Context(lambda: inputs.split(250), data, dense, None))
        after = evaluate(network, data, data.test, 250).accuracy
        row = {"blocking": blocking, "scorer": scorer, "sparsity": sparsity, "removed": removed}
        row |= {"accuracy": before, "accuracy_batchnorm": after}
        print(row, flush=True)
        rows.add([row])

    blocks, factors = stacked(dense)
    total = sum(block.size for block in blocks)
    for scorer in args.scorers:
        scores = [V.norm(dim=1) for _, V in factors.values()]
        if scorer == "perturbation" and missing("stacked", scorer):
            scores = perturbations(copy.deepcopy(dense), factors, images)
        for sparsity in missing("stacked", scorer):
            keep = make("selection", "global")(blocks, scores, sparsity, make_costs(blocks))
            network = copy.deepcopy(dense)
            for block, mask in zip(blocks, keep, strict=True):
                keep_alone(network, block.layer, factors[block.layer], mask)
            left = sum(block.cost(int(mask.sum())) for block, mask in zip(blocks, keep, strict=True))
            measured("stacked", scorer, sparsity, 1 - left / total, network)
        for blocking in (name for name in BLOCKINGS if missing(name, scorer)):
            fitted = lrp.fit(
                dense, Batches.of(images), method="singular_vectors", blocking=blocking, scorer=scorer, estimator="exact",
                selection="global", compensation="none", scoring_images=args.images,
            )  # fmt: skip
            for sparsity in missing(blocking, scorer):
                network, report = fitted.compress(sparsity)
                measured(blocking, scorer, sparsity, report.attrs["sparsity_params"], network)


if __name__ == "__main__":
    main()
