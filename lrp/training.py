"""Training a network from scratch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lrp.data import Data
from lrp.errors import InputError, check_float, check_int
from lrp.evaluation import evaluate
from lrp.files import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """SGD with Nesterov momentum and a one-cycle learning rate that peaks at ``lr``; crop and flip as the data set says."""

    epochs: int = 30
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256

    def __post_init__(self) -> None:
        check_int("model.training.epochs", self.epochs, 0)
        check_int("model.training.batch_size", self.batch_size, 2)
        check_float("model.training.lr", self.lr, above=0)
        check_float("model.training.momentum", self.momentum, above=0, below=1)
        check_float("model.training.weight_decay", self.weight_decay, above=-1e-12)

    def __call__(
        self, model: nn.Module, data: Data, seed: int, unfinished: Path, pick: Callable[[Any], Tensor] | None = None
    ) -> None:
        """Train ``model`` in place on the training part; ``pick`` gets the logits out of what it returns, where that is not a
        tensor; ``unfinished`` keeps the state after each epoch, so that a killed
        training goes on from there and gives what an undisturbed one gives. Raises InputError if the loss diverges."""
        device = next(model.parameters()).device
        steps = -(-len(data.train) // self.batch_size)
        optimizer = torch.optim.SGD(
            model.parameters(), self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps * self.epochs)
        done = 0
        if unfinished.exists():
            try:
                state = torch.load(unfinished, map_location=device, weights_only=True)
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                schedule.load_state_dict(state["schedule"])
                done = state["epochs"]
                log.info("training goes on after epoch %d of %d", done, self.epochs)
            except Exception as error:  # a damaged file costs time, not the run
                log.warning("the unfinished training in %s cannot be read (%s); it starts again", unfinished, error)
        for epoch in range(done, self.epochs):
            loss = self._epoch(model, pick, data, optimizer, schedule, seed, epoch)
            accuracy = evaluate(model, data, data.validation, 500, pick=pick).accuracy
            log.info("epoch %d of %d: loss %.3f, validation accuracy %.2f %%", epoch + 1, self.epochs, loss, 100 * accuracy)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": {k: v for k, v in schedule.state_dict().items() if isinstance(v, (int, float, list))},
                "epochs": epoch + 1,
            }
            write_whole(unfinished, lambda path, state=state: torch.save(state, path))
        model.eval()

    def _epoch(self, model, pick, data, optimizer, schedule, seed: int, epoch: int) -> float:
        """One pass over the training part in an order that ``seed`` and ``epoch`` determine; the mean loss."""
        device = next(model.parameters()).device
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        order = torch.randperm(len(data.train), generator=generator)
        model.train()
        total = 0.0
        bar = tqdm(order.split(self.batch_size), desc=f"epoch {epoch + 1} of {self.epochs}", leave=False, disable=None)
        for which in bar:
            images = data.normalise(data.augment(data.train.images[which], generator).to(device))
            logits = model(images) if pick is None else pick(model(images))
            loss = F.cross_entropy(logits, data.train.labels[which].to(device))
            if not bool(torch.isfinite(loss)):
                raise InputError(f"model.training.lr={self.lr}: the training diverged; a smaller one is needed")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(which)
            bar.set_postfix(loss=f"{loss.item():.3f}")
        return total / len(order)

    @property
    def identity(self) -> str:
        return str(asdict(self))
