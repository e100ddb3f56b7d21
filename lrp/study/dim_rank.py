"""Figure 1: accuracy by the size and the rank of the last hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import torch

from lrp.errors import InputError, check_float, check_int, check_list
from lrp.layer.hold_rank import hold_rank
from lrp.study.job import Cell, Place
from lrp.study.networks import OneHidden
from lrp.study.training import accuracy, train_epoch


@dataclass(frozen=True)
class DimRank:
    """Trains ``OneHidden`` from scratch for every dim of ``dims`` and rank of ``ranks`` that is at most dim, or -1: its hidden layer
    of dim units is U V with two Glorot-initialised factors of that rank (also where it equals dim), or one dense matrix for -1.

    Adam with a constant ``lr`` on the training part, pixels / 255, no augmentation; the accuracy is on the test set after the
    last epoch, that on the validation images beside it. Source: the paper, figure 1, which gives neither the network nor the
    number of epochs: these are ours, chosen on validation images (experiments/README.md).
    """

    name: ClassVar[str] = "figure1"
    keys: ClassVar[tuple[str, ...]] = ("dim", "rank")
    columns: ClassVar[tuple[str, ...]] = (
        "epochs", "batch_size", "lr", "dim", "rank", "accuracy", "accuracy_validation", "loss", "params_hidden", "params",
    )  # fmt: skip
    details: ClassVar[str] = "epochs.csv"
    uses: ClassVar[tuple[str, ...]] = ()

    dims: Sequence[int]
    ranks: Sequence[int]
    epochs: int
    batch_size: int
    lr: float

    def __post_init__(self) -> None:
        check_int("study.epochs", self.epochs, 1)
        check_int("study.batch_size", self.batch_size, 1)
        check_float("study.lr", self.lr, above=0)
        for option in ("dims", "ranks"):
            check_list(f"study.{option}", getattr(self, option))
        for dim in self.dims:
            check_int("study.dims", dim, 1)
        for rank in self.ranks:
            if rank != -1:
                check_int("study.ranks", rank, 1)
        if not self.cells():
            raise InputError("study.ranks", list(self.ranks), f"must hold -1, or a rank of at most study.dims={list(self.dims)}")

    def cells(self) -> list[Cell]:
        """One network each."""
        return [{"dim": dim, "rank": rank} for dim in self.dims for rank in self.ranks if rank <= dim]

    def run(self, cell: Cell, place: Place) -> tuple[dict[str, Any], pd.DataFrame]:
        """Train one network; its row and its table of details."""
        dim, rank, data = cell["dim"], cell["rank"], place.data
        torch.manual_seed(place.seed)
        model = OneHidden(data.train.images[0].numel(), dim, data.num_classes)
        hold_rank(model, {"hidden": rank}, "glorot", torch.Generator().manual_seed(place.seed))
        model.to(place.device)
        optimizer = torch.optim.Adam(model.parameters(), self.lr)
        epochs = []
        for epoch in range(self.epochs):
            label = f"dim {dim}, rank {rank}, epoch {epoch + 1} of {self.epochs}"
            loss = train_epoch(model, data.train, optimizer, self.batch_size, place.seed, epoch, label)
            epochs.append({"epoch": epoch + 1, "loss": loss, "accuracy_validation": accuracy(model, data.validation)})
        row = {
            "epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr, **cell, "accuracy": accuracy(model, data.test),
            "accuracy_validation": epochs[-1]["accuracy_validation"], "loss": epochs[-1]["loss"],
            "params_hidden": sum(p.numel() for p in model.hidden.parameters()), "params": sum(p.numel() for p in model.parameters()),
        }  # fmt: skip
        return row, pd.DataFrame(epochs)

    def finish(self, place: Place) -> None:
        """Nothing is kept of a cell but its rows."""
