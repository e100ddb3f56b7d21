"""Which way of training comes nearest to the paper's figure 1? The paper gives neither optimiser, nor epochs, nor network.

    python experiments/figure1_search.py --data $MNIST --out experiments/results

One property of a setting after the other is changed to the value whose accuracies on the validation images lie nearest to the paper's,
until nothing changes; each training is looked at after parts of an epoch as well. The search sees ten cells and one seed
(figure1_search.csv), twice: once a cell counts for all the paper's cells that it stands for, and once all count the same, so that the small
layers, which the paper's claims are about, outweigh the others. It begins with the setting of our figure 1, and again with the nearest of
all that were tried, until there is no new one. The settings that it ends with are then trained in all 33 cells with three seeds, and
tested (figure1_nearest.csv). What the tables hold is not trained again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from kept_rows import KeptRows
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.config.build import compose_job
from lrp.dataset.base import Data
from lrp.figure.figure1 import PAPER, PAPER_RANKS
from lrp.layer.hold_rank import hold_rank

CELLS = [(dim, rank) for dim, values in PAPER.items() for rank, _ in zip(PAPER_RANKS, values, strict=False)]
LOOKED_AT = {  # and for how many cells each stands: of its size, or of all from 100 units on, those above rank 5 with the dense one
    (10, -1): 1, (10, 5): 1, (10, 10): 1, (20, -1): 1, (20, 5): 1, (20, 20): 2, (50, 5): 1, (50, 50): 4, (100, -1): 18, (200, 5): 3,
}  # fmt: skip
EQUAL = dict.fromkeys(LOOKED_AT, 1)
Weights = Mapping[tuple[int, int], int]
EPOCHS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 3.0)
SEEDS = (0, 1, 2)
IN_FRONT = 200  # units of a hidden layer in front


@dataclass(frozen=True)
class Setting:
    """How a network is made and trained.

    Attributes:
        optimiser: adam, sgd, or sgd with momentum 0.9; ``lr`` is constant.
        start: Of the two factors: each drawn as Glorot says, as torch draws a Linear, from a normal distribution of deviation 0.01, or
            from the singular vectors of one Glorot matrix.
        activation: After each hidden layer.
        in_front: What comes before the layer of dim units: nothing, a dense layer of 200 or of dim units, or two convolutions.
        pixels: In [0, 1], or less their mean over their deviation.
    """

    optimiser: str = "adam"
    lr: float = 1e-3
    start: str = "glorot"
    activation: str = "relu"
    in_front: str = "nothing"
    pixels: str = "unit"
    batch_size: int = 64


RATES = {"adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "sgd": (0.01, 0.03, 0.1, 0.3), "momentum": (1e-3, 0.01, 0.03, 0.1)}
CHANGES: list[list[dict[str, Any]]] = [
    [{"optimiser": name, "lr": lr} for name, rates in RATES.items() for lr in rates],
    [{"start": name} for name in ("glorot", "torch", "normal", "svd")],
    [{"activation": name} for name in ("relu", "sigmoid", "tanh", "none")],
    [{"pixels": name} for name in ("unit", "standardised")],
    [{"batch_size": size} for size in (16, 64, 256)],
    [{"in_front": name} for name in ("nothing", "dense", "dim", "convolutions")],
]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "none": nn.Identity}


def network(setting: Setting, dim: int, rank: int, seed: int) -> nn.Module:
    """Images (B, 1, 32, 32) to logits (B, 10); the layer ``hidden`` has dim units and is held at the rank, -1: one dense matrix."""
    torch.manual_seed(seed)
    act = ACTIVATIONS[setting.activation]
    front: list[nn.Module] = [nn.Flatten()]
    inputs = 1024
    if setting.in_front == "convolutions":
        convolutions = [nn.Conv2d(1, 8, 5), act(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), act(), nn.MaxPool2d(2)]
        front, inputs = [*convolutions, nn.Flatten()], 16 * 5 * 5
    elif setting.in_front != "nothing":
        width = dim if setting.in_front == "dim" else IN_FRONT
        front, inputs = [nn.Flatten(), nn.Linear(1024, width), act()], width
    model = nn.Sequential()
    model.add_module("front", nn.Sequential(*front))
    model.add_module("hidden", nn.Linear(inputs, dim))
    model.add_module("activation", act())
    model.add_module("classifier", nn.Linear(dim, 10))
    layer: Any = model.get_submodule("hidden")
    if setting.start == "svd":
        nn.init.xavier_uniform_(layer.weight)
    hold_rank(model, {"hidden": min(rank, inputs)}, "svd" if setting.start == "svd" else "glorot", torch.Generator().manual_seed(seed))
    for parameter in model.get_submodule("hidden").parameters():
        if parameter.dim() == 2 and setting.start == "torch":
            nn.init.kaiming_uniform_(parameter, 5**0.5)
        elif parameter.dim() == 2 and setting.start == "normal":
            nn.init.normal_(parameter, std=0.01)
    return model


def optimiser(setting: Setting, model: nn.Module) -> torch.optim.Optimizer:
    if setting.optimiser == "adam":
        return torch.optim.Adam(model.parameters(), setting.lr)
    return torch.optim.SGD(model.parameters(), setting.lr, momentum=0.9 if setting.optimiser == "momentum" else 0)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((model(images).argmax(1) == labels).double().mean())


def train(setting: Setting, dim: int, rank: int, seed: int, data: Data, last: float, test: bool) -> list[dict[str, Any]]:
    """The accuracies after each of EPOCHS up to ``last``; those of the test set after the last alone, if ``test``."""

    def read(images: Tensor) -> Tensor:
        return data.normalise(images) if setting.pixels == "standardised" else images.float() / 255

    model = network(setting, dim, rank, seed)
    training = optimiser(setting, model)
    images, validation = data.train.images, read(data.validation.images)
    done, rows = 0, []
    batches = _batches(len(images), setting.batch_size, seed)
    for epoch in (epoch for epoch in EPOCHS if epoch <= last):
        steps = round(epoch * len(images) / setting.batch_size)
        for _ in range(done, steps):
            which = next(batches)
            loss = F.cross_entropy(model(read(images[which])), data.train.labels[which])
            training.zero_grad()
            loss.backward()
            training.step()
        done = steps
        row = {**asdict(setting), "dim": dim, "rank": rank, "seed": seed, "epoch": epoch}
        row["accuracy_validation"] = accuracy(model, validation, data.validation.labels)
        if test and epoch == last:
            row["accuracy"] = accuracy(model, read(data.test.images), data.test.labels)
        rows.append({**row, "paper": PAPER[dim][PAPER_RANKS.index(rank)]})
    return rows


def _batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).split(size)[: count // size]


def distances(rows: pd.DataFrame, weights: Weights) -> pd.Series:
    """The mean absolute difference to the paper (points) after each epoch looked at, of cells that count as the weights say."""
    counts = pd.Series([weights[cell] for cell in zip(rows["dim"], rows["rank"], strict=True)], rows.index)
    apart = 100 * (rows["accuracy_validation"] - rows["paper"]).abs()
    return (apart * counts).groupby(rows["epoch"]).sum() / counts.groupby(rows["epoch"]).sum()


def tried(setting: Setting, table: KeptRows, data: Data, weights: Weights) -> tuple[float, float]:
    """How near a setting comes on the cells looked at, and after how many epochs that is."""
    for (dim, rank), count in LOOKED_AT.items():
        if not table.has(**asdict(setting), dim=dim, rank=rank):
            table.add([{**row, "stands_for": count} for row in train(setting, dim, rank, 0, data, EPOCHS[-1], False)])
    found = distances(table.of(**asdict(setting)), weights)
    print(f"{found.min():.2f} points after {found.idxmin()} epochs: {setting}", flush=True)
    return float(found.min()), float(found.idxmin())


def nearest_known(table: KeptRows, weights: Weights) -> Setting:
    """Of all settings tried; that of our figure 1 where there is none."""
    best, least = Setting(), math.inf
    names = [part.name for part in fields(Setting)]
    for values, rows in table.table.groupby(names) if len(table.table) else ():
        if (found := distances(rows, weights).min()) < least and len(rows) == len(LOOKED_AT) * len(EPOCHS):
            best, least = Setting(**dict(zip(names, values, strict=True))), found
    return best


def search(table: KeptRows, data: Data, weights: Weights) -> tuple[Setting, float]:
    """The setting that comes nearest, and its epochs: one property after the other, until a round changes nothing."""
    best = nearest_known(table, weights)
    nearest, epochs = tried(best, table, data, weights)
    while True:
        before = best
        for changes in CHANGES:
            for setting in [replace(best, **change) for change in changes]:
                distance, after = tried(setting, table, data, weights)
                if distance < nearest:
                    best, nearest, epochs = setting, distance, after
        if best == before:
            return best, epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MNIST")
    parser.add_argument("--out", type=Path, required=True, help="the folder of both tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = compose_job("experiment=figure1_small", "dataset=mnist", f"dataset.path={args.data}", "tracker=none").dataset.load()
    searched, table = KeptRows(args.out / "figure1_search.csv"), KeptRows(args.out / "figure1_nearest.csv")
    known = -1
    while len(searched.table) > known:
        known = len(searched.table)
        found = [search(searched, data, weights) for weights in (EQUAL, LOOKED_AT)]
    for best, epochs in found:
        for seed in SEEDS:
            for dim, rank in CELLS:
                held = table.of(**asdict(best), dim=dim, rank=rank, seed=seed, epoch=epochs)
                if not len(held) or held["accuracy"].isna().all():
                    table.add(train(best, dim, rank, seed, data, epochs, True))
        rows = table.of(**asdict(best), epoch=epochs).dropna(subset=["accuracy"])
        print(best, distances(rows, dict.fromkeys(CELLS, 1)).round(2).to_dict(), flush=True)


if __name__ == "__main__":
    main()
