"""The moments of components of any kind, from the gradient of each output of each example with respect to each layer's weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lrp.batches import Batches, Inputs, call, examples, tensors
from lrp.estimator.moments import Moments
from lrp.layer.build import kind_of
from lrp.matrices import Components
from lrp.network.arithmetic import check_finite, plain_arithmetic, read_output
from lrp.network.frozen import FrozenNetwork

AT_ONCE = 64  # examples


def gradient_moments(
    network: FrozenNetwork,
    factors: Sequence[Components],
    images: Inputs,
    read: Callable[[Any], Tensor],
    directions: Callable[[Tensor], Tensor],
) -> list[Moments]:
    """The moments of <c_i, dy_k/dW>, what component i changes in output k to first order: of each block ``first`` and ``second`` (R, 1).

    What scorers read are sums over the outputs, and all that is kept are such sums: ``second`` is that of E[(y - y_b)^2], and ``first`` the
    root of that of E[y - y_b]^2. ``directions`` gives from y (B, K) the combinations of outputs (J, K) that are differentiated.

    One backward pass for each example and direction; nothing is held for each output of each component, of which there may be millions.

    Raises:
        InputError: Where outputs are not finite.
    """
    layers = [name for name in dict.fromkeys(factor.block.layer for factor in factors) if name in network.modules]
    differentiated = _Differentiated(network, layers, read)
    images = network.as_input(images)
    second = [torch.zeros(factor.count, dtype=torch.float64) for factor in factors]
    first = [torch.zeros_like(total) for total in second]
    count = examples(images)
    batches = Batches.of(images)
    with torch.inference_mode(False), differentiated, plain_arithmetic(tensors(images)[0].device):
        for one in tqdm(batches.split(1), desc="first-order scoring", unit="image", total=count, leave=False, disable=None):
            for gradients in differentiated(one, directions):
                for total, factor in zip(second, factors, strict=True):
                    if factor.block.layer in gradients:
                        total += factor.dot(factor.block.of(gradients[factor.block.layer])).square_()
        for k in range(differentiated.count):
            means = [torch.zeros_like(total) for total in first]
            for batch in batches.split(AT_ONCE):
                (gradients,) = differentiated(batch, lambda y, k=k: directions(y)[k : k + 1])
                for mean, factor in zip(means, factors, strict=True):
                    if factor.block.layer in gradients:
                        mean += factor.dot(factor.block.of(gradients[factor.block.layer]))
            for total, mean in zip(first, means, strict=True):
                total += (mean / count).square_()
    return [Moments(a.sqrt()[:, None], (b / count)[:, None]) for a, b in zip(first, second, strict=True)]


class _Differentiated:
    """A frozen network whose layers' weights need a gradient for as long as this is entered.

    Attributes:
        count: How many directions the last call had.
    """

    def __init__(self, network: FrozenNetwork, layers: Sequence[str], read: Callable[[Any], Tensor]) -> None:
        self.network, self.layers, self.read = network, layers, read
        self.weights: list[Tensor] = [network.modules[name].weight for name in layers]
        self.count = 0

    def __enter__(self) -> None:
        for weight in self.weights:
            weight.requires_grad_(True)

    def __exit__(self, *_: Any) -> None:
        for weight in self.weights:
            weight.requires_grad_(False)

    def __call__(self, batch: Inputs, directions: Callable[[Tensor], Tensor]) -> Iterator[dict[str, Tensor]]:
        """Of each direction the gradients of the layers' matrices (M, N) as they are before a batch norm is folded in, float64 on the CPU,
        added up over the batch."""
        with torch.enable_grad():
            y = read_output(self.read, call(self.network.module, batch), batch)
        check_finite(y, self.network.module, self.layers, batch)
        chosen = directions(y)
        self.count = len(chosen)
        for direction in chosen:
            found = [None] * len(self.weights)
            if y.requires_grad:
                found = torch.autograd.grad(y, self.weights, direction.expand_as(y), retain_graph=True, allow_unused=True)
            yield {name: self._matrix(name, grad) for name, grad in zip(self.layers, found, strict=True) if grad is not None}

    def _matrix(self, name: str, grad: Tensor) -> Tensor:
        layer = self.network.modules[name]
        matrix = kind_of(layer).as_matrix(layer, grad).double().cpu()
        return matrix if name not in self.network.scale else matrix * self.network.scale[name].double().cpu()[:, None]
