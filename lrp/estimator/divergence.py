"""How far the softmax outputs of a network are from those of another, the dense one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lrp.batches import Batches, Inputs, call, counted, tensors
from lrp.errors import InputError
from lrp.estimator.base import Estimator, places
from lrp.network.arithmetic import plain_arithmetic

AT_ONCE = 256  # examples that run at a time, or fewer, where their outputs are large
TEMPORARIES = 6  # float64 tensors as large as the outputs that are there at once


class Divergence:
    """The mean Kullback-Leibler divergence of networks' softmax outputs from the dense network's on the same examples, in nats: of an
    example the mean over its places (tokens, pixels) that count.

    The dense network's outputs are found once and held, as far as ``estimator.memory_limit`` goes; beyond it they are found again for each
    network.

    Attributes:
        dense: The network that others are compared with; it keeps its modes.
        batches: The examples.
        estimator: Finds the outputs and their classes in what a network returns.
        temperature: Divides the logits.
    """

    def __init__(self, dense: nn.Module, batches: Batches, estimator: Estimator, temperature: float = 1.0) -> None:
        self.dense, self.batches, self.estimator, self.temperature = dense, batches, estimator, temperature
        self._held: list[Tensor] = []  # of the first batches
        self._free = estimator.memory_limit * 2**30
        self._at_once = 0  # not known yet

    @torch.no_grad()
    def __call__(self, small: nn.Module) -> float:
        """The divergence of one network, run in eval mode; NaN where its outputs are not finite.

        Raises:
            InputError: For networks with one output.
        """
        total = 0.0
        with _evaluating(self.dense), _evaluating(small):
            for number, batch in enumerate(self.batches.split(self._size())):
                z, y = self._of_dense(number, batch).double(), self._outputs(small, batch).double()
                if self.temperature != 1:
                    z, y = z / self.temperature, y / self.temperature
                each = z.softmax(2) * (z.log_softmax(2) - y.log_softmax(2))
                weights = places(z, counted(batch))[..., None]
                total += float(torch.where(weights > 0, each * weights, 0).sum())
        return max(total / len(self.batches), 0.0)

    def _size(self) -> int:
        """How many examples run at a time.

        Raises:
            InputError: For networks with one output.
        """
        if not self._at_once:
            one = self._outputs(self.dense, self.batches.example)
            if one.shape[2] < 2:
                raise InputError("the network has one output, whose softmax is constant, so that no divergence of it can be found")
            fitting = int(self.estimator.memory_limit * 2**30 / (8 * TEMPORARIES * one.numel()))
            self._at_once = min(AT_ONCE, max(1, fitting))
        return self._at_once

    def _of_dense(self, number: int, batch: Inputs) -> Tensor:
        if number < len(self._held):
            return self._held[number]
        found = self._outputs(self.dense, batch)
        size = found.numel() * found.element_size()
        if number == len(self._held) and size <= self._free:
            self._held.append(found.clone())  # without what else its memory holds
            self._free -= size
        return found

    def _outputs(self, model: nn.Module, batch: Inputs) -> Tensor:
        """(B, places, K); a network that writes into its inputs writes into a copy."""
        with plain_arithmetic(tensors(batch)[0].device):
            return self.estimator.by_place(self.estimator.pick(call(model, batch)))


def divergence(dense: nn.Module, small: nn.Module, batches: Batches, estimator: Estimator, temperature: float = 1.0) -> float:
    """The divergence of one network alone, as ``Divergence`` says.

    Raises:
        InputError: For networks with one output.
    """
    return Divergence(dense, batches, estimator, temperature)(small)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """All modules are in eval mode, and then as they were."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
