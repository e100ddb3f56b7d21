"""Figure 2: train at one rank, switch to another, and go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
from torch import nn

from lrp.dataset.base import Part
from lrp.entries import read_state, write_state
from lrp.errors import InputError, check_float, check_int, check_list, check_rank
from lrp.files import sha256
from lrp.layer.base import GROW, LowRank
from lrp.layer.hold_rank import hold_rank
from lrp.study.job import Cell, Place
from lrp.study.networks import SwitchNet
from lrp.study.training import accuracy, some, train_epoch
from lrp.training import computed_by


@dataclass
class State:
    """A network in training: ``history`` is its test accuracy after each epoch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    history: list[float]
    losses: list[float]


@dataclass(frozen=True)
class RankSwitch:
    """The hidden Linear of ``SwitchNet`` is held at rank a (of ``train_ranks``); after epoch e (of ``switch_epochs``) it is switched
    to rank b (of ``switch_ranks``) and trained on, ``epochs`` in all; and each a is trained without a switch. -1: one dense matrix.

    Adam with a constant ``lr``, made anew at the switch; pixels / 255, no augmentation; ``images`` of the training images, null: all,
    validation images among them. The network is watched on the test set after every epoch, as the authors' public code did: the one
    exception to lrp's rule, and nothing is chosen by it. What e epochs at rank a give is computed once and shared by all b; a = b is
    one training without a switch (Adam goes on). ``grow``: see ``LowRank.set_rank``. Source: the paper, figure 2.
    """

    name: ClassVar[str] = "figure2"
    keys: ClassVar[tuple[str, ...]] = ("rank_before", "rank_after", "switch_epoch")
    columns: ClassVar[tuple[str, ...]] = (
        "width", "units", "images", "epochs", "batch_size", "lr", "grow", "rank_before", "rank_after", "switch_epoch", "accuracy",
        "accuracy_best_after_switch", "accuracy_before_switch", "accuracy_at_switch", "params_hidden", "loss",
    )  # fmt: skip
    details: ClassVar[str] = "epochs.csv"
    uses: ClassVar[tuple[str, ...]] = ()

    train_ranks: Sequence[int]
    switch_ranks: Sequence[int]
    switch_epochs: Sequence[int]
    width: float = 1.0
    images: int | None = None
    epochs: int = 50
    batch_size: int = 64
    lr: float = 1e-4
    grow: str = "svd"

    def __post_init__(self) -> None:
        check_float("study.width", self.width, above=0)
        if self.images is not None:
            check_int("study.images", self.images, 1)
        check_int("study.epochs", self.epochs, 1)
        check_int("study.batch_size", self.batch_size, 1)
        check_float("study.lr", self.lr, above=0)
        if self.grow not in GROW:
            raise InputError("study.grow", self.grow, f"choose one of {', '.join(GROW)}")
        for option in ("train_ranks", "switch_ranks", "switch_epochs"):
            check_list(f"study.{option}", getattr(self, option))
        for option in ("train_ranks", "switch_ranks"):
            for rank in getattr(self, option):
                check_rank(f"study.{option}", rank, self.units)
        for epoch in self.switch_epochs:
            check_int("study.switch_epochs", epoch, 1)
            if epoch >= self.epochs:
                raise InputError("study.switch_epochs", epoch, f"must be less than study.epochs={self.epochs}")

    @property
    def units(self) -> int:
        """Of the hidden layer, which has more inputs: its full rank."""
        return max(1, round(self.width * 256))

    def cells(self) -> list[Cell]:
        """By switch epoch in the order given, then by rank; the trainings without a switch first, which leave the shared states."""
        pairs = [(a, b) for a in self.train_ranks for b in self.switch_ranks if a != b]
        same = [(a, a, 0) for a in self.train_ranks]
        switched = [(a, b, e) for e in self.switch_epochs for a, b in pairs]
        return [dict(zip(self.keys, cell)) for cell in [*same, *switched]]

    def run(self, cell: Cell, place: Place) -> tuple[dict[str, Any], pd.DataFrame]:
        """Train one cell to the end; switch_epoch 0 stands for no switch."""
        before, after, switch = (cell[key] for key in self.keys)
        part = some(place.data.undivided(), self.images, "study.images")
        state = self._prefix(before, switch or self.epochs, part, place)
        at_switch = None
        if switch:
            self._switch(state, after, place)
            at_switch = accuracy(state.model, place.data.test)
            for epoch in range(switch, self.epochs):
                self._epoch(state, part, place, epoch, f"rank {before} to {after} at {switch}")
        row = {
            "width": self.width, "units": self.units, "images": len(part), "epochs": self.epochs, "batch_size": self.batch_size,
            "lr": self.lr, "grow": self.grow, **cell, "accuracy": state.history[-1],
            "accuracy_best_after_switch": max(state.history[switch:]),
            "accuracy_before_switch": state.history[switch - 1] if switch else None, "accuracy_at_switch": at_switch,
            "params_hidden": sum(p.numel() for p in state.model.get_submodule("hidden").parameters()), "loss": state.losses[-1],
        }  # fmt: skip
        epochs = pd.DataFrame({"epoch": range(1, self.epochs + 1), "accuracy": state.history, "loss": state.losses})
        return row, epochs

    def finish(self, place: Place) -> None:
        """Remove the states of a job that is done."""
        for file in (place.folder / "states").glob("rank*"):
            file.unlink()

    def _network(self, rank: int, place: Place) -> nn.Module:
        """The network at its start: all but the hidden layer is the same for every rank."""
        torch.manual_seed(place.seed)
        model = SwitchNet(place.data.channels, place.data.num_classes, self.width)
        hold_rank(model, {"hidden": rank}, "glorot", torch.Generator().manual_seed(place.seed))
        return model.to(place.device).to(memory_format=torch.channels_last)

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), self.lr)

    def _switch(self, state: State, rank: int, place: Place) -> None:
        hidden = state.model.hidden
        assert isinstance(hidden, LowRank)
        hidden.set_rank(rank, self.grow, torch.Generator().manual_seed(place.seed))
        state.optimizer = self._optimizer(state.model)

    def _epoch(self, state: State, part: Part, place: Place, epoch: int, what: str) -> None:
        label = f"{what}, epoch {epoch + 1} of {self.epochs}"
        state.losses.append(train_epoch(state.model, part, state.optimizer, self.batch_size, place.seed, epoch, label))
        state.history.append(accuracy(state.model, place.data.test))

    def _prefix(self, rank: int, epochs: int, part: Part, place: Place) -> State:
        """The training at ``rank`` after ``epochs``, from the latest state that is stored; those of switch epochs are stored, and the last
        one, from which a killed job goes on."""
        model = self._network(rank, place)
        state = State(model, self._optimizer(model), [], [])
        made_from = self._made_from(rank, part, place)
        latest, start = place.folder / "states" / f"rank{rank}-latest.pt", 0
        stored = {e: self._file(place.folder, rank, e) for e in self.switch_epochs}
        for file in [stored.get(epochs), latest, *(stored[e] for e in sorted(stored, reverse=True))]:
            found = None if file is None else read_state(file, made_from)
            if found is not None and start < found["epochs"] <= epochs:
                model.load_state_dict(found["model"])
                state.optimizer.load_state_dict(found["optimizer"])
                state.history, state.losses, start = found["history"], found["losses"], found["epochs"]
        for epoch in range(start, epochs):
            self._epoch(state, part, place, epoch, f"rank {rank}")
            content = {
                "model": model.state_dict(), "optimizer": state.optimizer.state_dict(), "epochs": epoch + 1, "history": state.history,
                "losses": state.losses,
            }  # fmt: skip
            for file in [latest, *([stored[epoch + 1]] if epoch + 1 in stored else [])]:
                write_state(file, content, made_from)
        return state

    def _made_from(self, rank: int, part: Part, place: Place) -> str:
        """Hash of all that the states of a rank depend on; how often it is trained and to what it is switched are not among that."""
        options = ["figure2", str(self.width), str(self.batch_size), str(self.lr), str(rank), str(place.seed), computed_by(place.device)]
        return sha256([*options, str(place.data.num_classes), part.images, part.labels, place.data.test.images, place.data.test.labels])

    @staticmethod
    def _file(folder: Path, rank: int, epoch: int) -> Path:
        return folder / "states" / f"rank{rank}-epoch{epoch}.pt"
