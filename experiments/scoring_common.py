"""What the scoring scripts share: the networks, their images, and how a set of kept components is judged."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from lrp.config.build import compose_job
from lrp.config.parts import make
from lrp.dataset.base import Data, batches
from lrp.decomposition.base import decompose
from lrp.estimator.moments import Moments
from lrp.evaluation import evaluate
from lrp.evidence import Evidence
from lrp.files import write_whole
from lrp.layer.build import build, layer_matrices
from lrp.matrices import Factors
from lrp.recovery.context import Context

BLOCKINGS = ("none", "alds", "square")


@dataclass(frozen=True)
class Setting:
    """A trained network, cut into blocks and decomposed, and the images that it is scored and judged on."""

    network: str
    blocking: str
    model: nn.Module
    data: Data
    factors: list[Factors]
    cache: Path

    def images(self, count: int) -> Tensor:
        """The first ``count`` calibration images that figure 3 draws, normalised."""
        return self.data.normalise(self.data.calibration(max(count, 2000), 0).take(torch.arange(count)).images)

    def moments(self, estimator, images: Tensor) -> list[Moments]:
        return Evidence(self.model, images, self.cache).of(estimator, (), 1).moments(self.factors)

    def keep(self, scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
        return make("selection", "global")([factor.block for factor in self.factors], scores, sparsity)

    def accuracy(self, keep: Sequence[Tensor]) -> float:
        """Validation accuracy (%), batch norm re-estimated on 512 calibration images."""
        pruned = build(self.model, self.factors, keep)
        device = next(pruned.parameters()).device
        part = self.data.calibration(512, 0)
        make("recovery", "batchnorm")(
            pruned, Context(lambda: (self.data.network_input(images, device) for images, _ in batches(part, 128)))
        )
        return 100 * evaluate(pruned, self.data, self.data.validation, 100, f"{self.network} {self.blocking}").accuracy


class _Known:
    """Evidence whose moments are known already."""

    def __init__(self, moments: Sequence[Moments]) -> None:
        self._moments = list(moments)

    def moments(self, factors: Sequence[Factors]) -> list[Moments]:
        return self._moments


def perturbation(moments: Sequence[Moments]) -> list[Tensor]:
    return make("scorer", "perturbation")([], _Known(moments))


def variance(moments: Sequence[Moments]) -> list[Tensor]:
    return make("scorer", "variance")([], _Known(moments))


def spearman(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return pd.Series(torch.cat(list(a)).numpy()).corr(pd.Series(torch.cat(list(b)).numpy()), "spearman")


def overlap(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The share of the components kept in ``a`` that ``b`` keeps as well."""
    a, b = torch.cat(list(a)), torch.cat(list(b))
    return float((a & b).sum() / a.sum().clamp(min=1))


def parser(text: str) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--vgg16", type=Path, required=True, metavar="CHECKPOINT", help="weights of a VGG16 trained on CIFAR-10")
    result.add_argument("--data", required=True, help="CIFAR-10, as dataset.path takes it")
    result.add_argument("--cache-dir", type=Path, default=Path("outputs/cache"))
    result.add_argument("--out", type=Path, default=Path("experiments/results"))
    result.add_argument("--threads", type=int, default=2)
    return result


def settings(args: argparse.Namespace, checkpoints: dict[str, Path | None], blockings: Sequence[str] = BLOCKINGS):
    """Each network with each blocking, one after the other."""
    torch.set_num_threads(args.threads)
    data = make("dataset", "cifar10", path=args.data).load()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for network, checkpoint in checkpoints.items():
        if checkpoint is None:
            continue
        source = replace(compose_job(f"model={network}", "dataset=cifar10").model, checkpoint=str(checkpoint))
        model, _ = source.obtain(data, 0, args.cache_dir, device)
        matrices = layer_matrices(model)
        for name in blockings:
            yield Setting(network, name, model, data, decompose(matrices, make("blocking", name)(matrices)), args.cache_dir)


def write_table(rows: list[dict], file: Path) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    write_whole(file, lambda path: table.to_csv(path, index=False))
    return table
