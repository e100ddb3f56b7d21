"""Which form of the perturbation correlates with relative error as the paper says (Spearman 0.87)?

    python experiments/score_forms.py --vgg16 $CHECKPOINT --resnet20 $RESNET --data $DATA --out experiments/results/score_forms.csv

Three networks: the VGG16 and the ResNet-20 on CIFAR-10, and the slim VGG16 that lrp trains on its digits. Of every component of every
blocking the change of the outputs is found once, exactly and to first order, and read in all forms that the authors' public code has
had: the norm squared or not, of logits or after the softmax, the Kullback-Leibler divergence, and the variance; on calibration images,
on one image of ones, and on one augmented batch. Each is correlated with the singular value over the layer's largest (relative error),
over the block's own largest, and as it is. One row per network, blocking, estimator, input, form and seed; rows that the table has are
not computed again.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from kept_rows import KeptRows
from torch import Tensor, nn

from lrp.config.build import compose_job
from lrp.config.parts import make
from lrp.dataset.base import Data
from lrp.decomposition.base import decompose
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.layer.build import layer_matrices
from lrp.matrices import Components
from lrp.partition import cut

BLOCKINGS = ("none", "alds", "square")
FORMS = ("squared", "norm", "variance", "softmax_squared", "softmax_norm", "divergence")
INPUTS = ("images", "ones", "augmented")


def forms(y: Tensor, y_b: Tensor) -> Tensor:
    """The scores (R, FORMS) of components from outputs y (B, K) and those without each component, y_b (R, B, K)."""
    change, log, log_b = y - y_b, y.log_softmax(-1), y_b.log_softmax(-1)
    p = log.exp()
    softmax = p - log_b.exp()
    found = [
        change.square().sum(2).mean(1),
        change.norm(dim=2).mean(1),
        change.var(1, correction=0).sum(1),
        softmax.square().sum(2).mean(1),
        softmax.norm(dim=2).mean(1),
        (p * (log - log_b)).sum(2).mean(1),
    ]
    return torch.stack(found, dim=1)


class Outputs(ExactEstimator):
    """Outputs without each component, where the exact estimator has their moments: (2, R, B K), the first of both y_b."""

    def _found(self, y: Tensor, y_b: Tensor) -> Tensor:
        kept = y_b.flatten(1)
        return torch.stack([kept, torch.zeros_like(kept)])


def exact(network: nn.Module, factors: Sequence[Components], images: Tensor) -> list[Tensor]:
    """All forms of all components of each block, (R, FORMS)."""
    estimator = Outputs(memory_limit=64)  # all images in one batch: means of norms are no sums of those of batches
    y = estimator.outputs(network, images)
    moments, _ = estimator(network, factors, images)
    return [forms(y, block.first.view(len(block.first), *y.shape)) for block in moments]


def first_order(network: nn.Module, factors: Sequence[Components], images: Tensor) -> list[Tensor]:
    """The same, the outputs without a component taken to first order."""
    estimator = FirstOrderEstimator()
    y = estimator.outputs(network, images)
    return [forms(y, y - change.double().permute(2, 0, 1)) for change in estimator.contributions(network, factors, images)]


ESTIMATORS = {"first_order": first_order, "exact": exact}


def rivals(factors: Sequence[Components]) -> dict[str, Tensor]:
    """What the perturbation is correlated with, of all components."""
    tiny = torch.finfo(torch.float64).tiny
    return {
        "relative_error": torch.cat([f.S / max(f.layer_norm, tiny) for f in factors]),
        "relative_error_block": torch.cat([f.S / max(float(f.S.max()), tiny) for f in factors]),
        "magnitude": torch.cat([f.S for f in factors]),
    }


def correlations(layers: Sequence[str], scores: Tensor, others: dict[str, Tensor]) -> dict[str, float]:
    """Spearman's correlation of scores (components,) with each of the others, over all and as the mean within layers."""
    table = pd.DataFrame({"layer": layers, "score": scores, **others})
    found = {}
    for name in others if table["score"].nunique() > 1 else ():  # of one image there is no variance
        within = [part["score"].corr(part[name], "spearman") for _, part in table.groupby("layer") if part["score"].nunique() > 2]
        found |= {name: float(table["score"].corr(table[name], "spearman")), f"{name}_within": float(sum(within) / len(within))}
    return found


def inputs_of(kind: str, data: Data, images: int, seed: int) -> Tensor:
    part, device = data.calibration(images, seed).images, torch.device("cpu")
    if kind == "ones":
        return torch.ones_like(data.network_input(part[:1], device))
    if kind == "augmented":
        part = data.augment(part, torch.Generator().manual_seed(seed))
    return data.network_input(part, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vgg16", required=True, help="its checkpoint")
    parser.add_argument("--resnet20", required=True, help="its checkpoint")
    parser.add_argument("--data", required=True, help="CIFAR-10")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the images; the exact change of VGG16 takes the first")
    parser.add_argument("--estimators", nargs="+", default=list(ESTIMATORS), choices=list(ESTIMATORS))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cifar10 = ["dataset=cifar10", f"dataset.path={args.data}"]
    networks = {
        "vgg16_slim": ["model=vgg16_slim", "dataset=mnist_small"],
        "resnet20": ["model=resnet20", f"model.checkpoint={args.resnet20}", *cifar10],
        "vgg16": ["model=vgg16", f"model.checkpoint={args.vgg16}", *cifar10],
    }
    rows = KeptRows(args.out)
    for network, words in networks.items():
        job = compose_job(*words, "tracker=none")
        data = job.dataset.load()
        dense, _ = job.model.obtain(data, 0, Path("outputs/cache"), torch.device("cpu"), job.estimator)
        dense.eval()
        matrices = layer_matrices(dense)
        for blocking in BLOCKINGS:
            factors = decompose(matrices, cut(make("blocking", blocking), matrices))
            layers = [factor.block.layer for factor in factors for _ in range(factor.count)]
            others = rivals(factors)
            for estimator, seed, kind in itertools.product(args.estimators, args.seeds, INPUTS):
                once = kind == "ones" or (estimator, network) == ("exact", "vgg16")
                row = {"network": network, "blocking": blocking, "estimator": estimator, "input": kind, "seed": seed}
                if rows.has(**row) or (once and seed != args.seeds[0]):
                    continue
                scores = torch.cat(ESTIMATORS[estimator](dense, factors, inputs_of(kind, data, args.images, seed)))
                forms = zip(FORMS, scores.T, strict=True)
                found = [{**row, "form": form, "components": len(column), **correlations(layers, column, others)} for form, column in forms]
                print(found[0], flush=True)
                rows.add(found)


if __name__ == "__main__":
    main()
