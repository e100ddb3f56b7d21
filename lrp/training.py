"""Training on labelled images: of a network from scratch, and the loop that it shares with the recovery of a pruned one."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from lrp.dataset.base import Data, Part
from lrp.entries import read_state, write_state
from lrp.epochs import tell
from lrp.errors import InputError, check_float, check_int, first_line
from lrp.evaluation import evaluate
from lrp.files import sha256
from lrp.layer.duplicate import load_state

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16")
OPTIMIZERS = ("sgd", "adamw")

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits (B, K), labels (B,) and the images that the network saw: one value


def computed_by(device: torch.device) -> str:
    """Of a device what trained weights depend on to the last bit: its kind, and on a CPU the number of threads."""
    return f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for each epoch of each job, within the 64 bits that a generator takes."""
    return (1_000_003 * seed + epoch) % 2**64


def cross_entropy(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
    """Mean cross entropy (nats) of logits (B, K) and labels (B,), or of (B, T, K) and (B, T); the images are not looked at."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


@dataclass(frozen=True)
class _Task:
    """What ``fit`` is given, as each epoch needs it."""

    model: nn.Module
    data: Data
    part: Part
    seed: int
    pick: Callable[[Any], Tensor] | None
    loss: Loss
    memory_format: torch.memory_format


@dataclass(frozen=True)
class Sgd:
    """SGD with Nesterov momentum and a one-cycle learning rate; images are cropped and flipped as the data set says.

    Attributes:
        option: Where the fields are in the configuration.
        fewest: Epochs allowed.
        swing: The momentum falls from ``momentum`` + swing to ``momentum`` - swing as the learning rate rises, and comes back as it
            falls; 0: it stays.
        epochs: Passes over the images.
        lr: The peak of the learning rate.
        momentum: Of SGD.
        weight_decay: Times each parameter, added to its gradient.
        batch_size: Images per step, at least 2.
        precision: "float32", or "bfloat16" for torch.autocast in it, a teacher's forward included. Weights, optimiser and evaluation
            stay in float32. It is faster only where the processor computes in it.
        optimizer: "sgd", or "adamw" (Loshchilov and Hutter, 2019), whose weight decay is apart from the gradient and whose first moment
            takes the momentum.
    """

    option: ClassVar[str]
    fewest: ClassVar[int]
    swing: ClassVar[float]

    epochs: int = 30
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256
    precision: str = "float32"
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"{self.option}.optimizer", self.optimizer, f"choose one of {', '.join(OPTIMIZERS)}")
        if self.precision not in PRECISIONS:
            raise InputError(f"{self.option}.precision", self.precision, f"choose one of {', '.join(PRECISIONS)}")
        check_int(f"{self.option}.epochs", self.epochs, self.fewest)
        check_int(f"{self.option}.batch_size", self.batch_size, 2)
        check_float(f"{self.option}.lr", self.lr, above=0)
        check_float(f"{self.option}.momentum", self.momentum, above=self.swing, below=1 - self.swing)
        check_float(f"{self.option}.weight_decay", self.weight_decay, least=0)

    def fit(
        self, model: nn.Module, data: Data, part: Part, seed: int, unfinished: Path | None, pick: Callable[[Any], Tensor] | None,
        loss: Loss = cross_entropy, identity: str = "", memory_format: torch.memory_format = torch.preserve_format,
        held_out: bool = True,
    ) -> list[dict[str, float]]:  # fmt: skip
        """Train ``model`` in place on ``part``.

        Args:
            model: The network; left in train mode.
            data: The data set that ``part`` is of.
            part: The images and labels to train on.
            seed: Draws the order, crops and mirror images, together with the epoch.
            unfinished: Keeps the state after each epoch, so that a killed training goes on from there and gives what an undisturbed
                one gives; a file of another ``identity`` or device or a damaged one is not used. None: nothing is kept.
            pick: Gets the logits (B, K) out of what the network returns, where that is not a tensor.
            loss: Of logits, labels and the images that the network saw.
            identity: Of all that the weights depend on, to know a file ``unfinished`` by; the device is added to it.
            memory_format: In which the images are given to the network.
            held_out: Whether the validation images are not in ``part``; otherwise the accuracy on them is NaN.

        Returns:
            Of each epoch its number, mean loss, validation accuracy and seconds.

        Raises:
            InputError: For a loss that is not finite.
        """
        task = _Task(model, data, part, seed, pick, loss, memory_format)
        identity = f"{identity} {computed_by(next(model.parameters()).device)}"
        begin = copy.deepcopy(model.state_dict())
        optimizer, schedule = self._optimizer(model, len(part))
        history = self._resume(unfinished, identity, model, optimizer, schedule)
        if history is None:  # of a damaged file some may have been loaded
            load_state(model, begin)
            optimizer, schedule = self._optimizer(model, len(part))
            history = []
        for done in history:
            tell(done)
        for epoch in range(len(history), self.epochs):
            start = time.perf_counter()
            mean = self._epoch(task, optimizer, schedule, epoch)
            seconds = time.perf_counter() - start
            found = evaluate(model, data, data.validation, 500, pick=pick)
            if not math.isfinite(found.loss):  # the last step's weights, which no further one tries
                raise self._diverged()
            accuracy = found.accuracy if held_out else math.nan
            told = f", validation accuracy {100 * accuracy:.2f} %" if held_out else ""
            log.info("epoch %d of %d: loss %.3f%s", epoch + 1, self.epochs, mean, told)
            history.append({"epoch": epoch + 1, "loss": mean, "validation_accuracy": accuracy, "seconds": seconds})
            tell(history[-1])
            if unfinished is not None:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": {k: v for k, v in schedule.state_dict().items() if isinstance(v, (int, float, list))},
                    "history": history,
                }
                self._keep(unfinished, state, identity)
        return history

    def _resume(
        self, unfinished: Path | None, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: OneCycleLR
    ) -> list[dict[str, float]] | None:
        """Load what an unfinished training left; its history, [] where there is none, None where the file cannot be used."""
        state = None if unfinished is None else read_state(unfinished, identity)
        if state is None:
            return []
        try:
            load_state(model, state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            history = list(state["history"])
        except Exception as error:  # a file that does not fit costs time, not the run
            log.warning("%s is not used and is made again: %s", unfinished, first_line(error))
            return None
        log.info("training goes on after epoch %d of %d", len(history), self.epochs)
        return history

    def _keep(self, unfinished: Path, state: dict[str, Any], identity: str) -> None:
        write_state(unfinished, state, identity)

    def _optimizer(self, model: nn.Module, images: int) -> tuple[torch.optim.Optimizer, OneCycleLR]:
        """The optimiser at the beginning of the schedule."""
        decay: Any = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), momentum=self.momentum, nesterov=True, **decay)
        else:
            optimizer = torch.optim.AdamW(model.parameters(), betas=(self.momentum, 0.99), **decay)
        steps = -(-images // self.batch_size) * self.epochs
        lowest, highest = (round(self.momentum + side, 12) for side in (-self.swing, self.swing))
        schedule = OneCycleLR(optimizer, self.lr, steps, cycle_momentum=self.swing > 0, base_momentum=lowest, max_momentum=highest)
        return optimizer, schedule

    def _epoch(self, task: _Task, optimizer: torch.optim.Optimizer, schedule: OneCycleLR, epoch: int) -> float:
        """One pass over the part in an order that the seed and ``epoch`` determine; the mean loss."""
        model, data, part = task.model, task.data, task.part
        device = next(model.parameters()).device
        generator = torch.Generator().manual_seed(epoch_seed(task.seed, epoch))
        order = torch.randperm(len(part), generator=generator)
        model.train()
        total = 0.0
        bar = tqdm(order.split(self.batch_size), desc=f"epoch {epoch + 1} of {self.epochs}", leave=False, disable=None)
        for which in bar:
            images = data.normalise(data.augment(part.images[which], generator).to(device))
            images = images.to(memory_format=task.memory_format) if images.dim() == 4 else images
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                logits = model(images) if task.pick is None else task.pick(model(images))
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                value = task.loss(logits, part.labels[which].to(device), images)
            if not bool(torch.isfinite(value)):
                raise self._diverged()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.item() * len(which)
            bar.set_postfix(loss=f"{value.item():.3f}")
        return total / len(order)

    def _diverged(self) -> InputError:
        return InputError(f"{self.option}.lr={self.lr}: the training diverged; choose a smaller one")

    @property
    def identity(self) -> str:
        """Whatever the trained weights depend on; an option that came later is left out at its default, so that older files stay valid."""
        later = ("precision", "hold_out", "optimizer")
        settings = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in later or getattr(self, each.name) != each.default
        }
        if self.swing and self.momentum != 0.9:  # once the momentum had no effect here
            settings["swing"] = self.swing
        return str(settings)


@dataclass(frozen=True)
class Training(Sgd):
    """A network from scratch."""

    option = "model.training"
    fewest = 0
    swing = 0.05

    def __call__(
        self, model: nn.Module, data: Data, seed: int, unfinished: Path, pick: Callable[[Any], Tensor] | None = None, made_from: str = ""
    ) -> list[dict[str, float]]:
        """Train ``model`` in place on the training part, and leave it in eval mode. Arguments, errors and what is returned as of ``fit``;
        ``made_from`` stands for what else the weights depend on than the settings, the seed, the network and the images."""
        states = [part for pair in model.state_dict().items() for part in pair]
        identity = sha256([self.identity, str(seed), str(model), data.fingerprint(), made_from, *states])
        history = self.fit(model, data, data.train, seed, unfinished, pick, identity=identity)
        model.eval()
        return history
