"""The change that removing a component makes, to first order: every component of every layer from a few backward passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrp.batches import Batches, Inputs, counted, cut, examples, on_tensors, tensors
from lrp.batches import call as run
from lrp.errors import InputError, check_int, some
from lrp.estimator.base import Estimator
from lrp.estimator.by_gradients import gradient_moments
from lrp.estimator.moments import Moments
from lrp.estimator.parts import Call, Part, channels_last, filters, prepare
from lrp.estimator.positions import BUFFER_BYTES, batch_dim, contract_rows, positions_of, precise, squares_of_rows
from lrp.layer.build import kind_of
from lrp.matrices import Components
from lrp.network.arithmetic import check_finite, check_rows, layer_input, memory_of, plain_arithmetic, random_signs, read_output
from lrp.network.frozen import FrozenNetwork, freeze

log = logging.getLogger(__name__)

IMAGES_AT_ONCE = 64  # more gain nothing (timed on VGG16: fewer do not repay that weights are laid out anew for every pass)


@dataclass(frozen=True)
class FirstOrderEstimator(Estimator):
    """Moments of J u_i (v_i . x), J the Jacobian from a layer's output to the network's: y - y_b to first order in the
    component, and exactly so where the network is linear behind the layer.

    One backward pass for each network output serves every component of every block of every layer. A network with more than
    ``projections`` outputs K has that many backward passes of random combinations of its outputs instead (signs +-1, the same
    for all images): the scores are then unbiased estimates, whose standard error is logged and stored. What is contracted over
    positions (the gradients by u_i, the inputs by v_i) is found by convolutions, never by unfolding a batch, in as many images
    as ``memory_limit`` admits. A layer that runs several times counts with the sum of its changes, and so do layers that hold one weight.
    Where no dimension of a layer's values runs over the images (experts, which read the rows that a router gives them), its rows are taken
    to change the outputs independently of each other: the expected squares are right for all images together then, and alike for each.

    Components that are not stored as u_i v_i (single weights) are found from one backward pass for each output of each image instead, and
    their joint change is not known.
    """

    name: ClassVar[str] = "first_order"
    differentiates: ClassVar[bool] = True
    ties: ClassVar[bool] = True
    projections: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("estimator.projections", self.projections, 1)

    @property
    def identity(self) -> str:
        """What the cache key says of the estimator: the name, and those of its options that change the moments."""
        return f"{super().identity};projections={self.projections}"

    def __call__(
        self, model: nn.Module | FrozenNetwork, factors: Sequence[Components], images: Inputs, partial: Path | None = None
    ) -> tuple[list[Moments], float]:
        """E[y - y_b] and E[(y - y_b)^2] of each block's components over the images (B, ...), to first order, and the seconds that this
        took. ``partial`` is not used: one pass over the images keeps no unfinished work."""
        start = time.perf_counter()
        if not all(factor.rank_one for factor in factors):
            with torch.inference_mode(False):
                network = freeze(model, images)
            return gradient_moments(network, factors, images, self.read, lambda y: self._directions(y)[0]), time.perf_counter() - start
        sums: list[Tensor] | None = None
        projected = False
        for _, D, few in self.stream(model, factors, images):
            parts, projected = [], few
            for part in D:
                part = part.double()
                parts.append(torch.stack([part.sum(0), part.square_().sum(0)]).transpose(1, 2))
            sums = parts if sums is None else [total.add_(part) for total, part in zip(sums, parts)]
        assert sums is not None, "there is at least one image"
        means = [(total / examples(images)).cpu() for total in sums]  # (2, R)
        moments = [Moments(first, second, projected) for first, second in means]
        if projected:
            error = torch.cat([m.standard_error() / m.second.sum(1).clamp(min=torch.finfo(torch.float64).tiny) for m in moments])
            log.info("%d random projections of the outputs: relative standard error of a score %.0f %% in the median, %.0f %% at most",
                     self.projections, 100 * error.median(), 100 * error.max())  # fmt: skip
        return moments, time.perf_counter() - start

    def contributions(self, model: nn.Module | FrozenNetwork, factors: Sequence[Components], images: Inputs) -> list[Tensor]:
        """D: of each block the change of every output of every image by each component, (B, K, R) in the network's precision.

        ||sum of the rows of a set S||^2 is the perturbation of removing all of S at once, to first order.

        Raises:
            InputError: For components that are not stored as u_i v_i, which are too many.
        """
        if not all(factor.rank_one for factor in factors):
            kind = factors[0].decomposition
            raise InputError("selection", "joint", f"it holds the change of each image by each component, too many of decomposition={kind}")
        return [torch.cat(parts) for parts in zip(*(D for _, D, _ in self.stream(model, factors, images)))]

    def joint(
        self, model: nn.Module | FrozenNetwork, factors: Sequence[Components], images: Inputs, removed: Sequence[Sequence[Tensor]]
    ) -> Tensor | None:
        """E ||y - y_S||^2, to first order, for each set S of components that are removed together: (sets,) float64; None of components that
        are not stored as u_i v_i.

        ``removed``: for each set the masks (R,) bool of its components, one per block.
        """
        if not all(factor.rank_one for factor in factors):
            return None
        total = torch.zeros(len(removed), dtype=torch.float64)
        chosen = [torch.stack(masks, dim=1).double() for masks in zip(*removed)]  # (R, sets) for each block
        for _, D, _ in self.stream(model, factors, images):
            change = cast(Tensor, sum(part.double().cpu() @ masks for part, masks in zip(D, chosen)))  # (B, K, sets)
            total += change.square().sum((0, 1))
        return total / examples(images)

    def stream(
        self, model: nn.Module | FrozenNetwork, factors: Sequence[Components], images: Inputs
    ) -> Iterator[tuple[Inputs, list[Tensor], bool]]:
        """For each batch of images: the batch, D of each block (B, K, R), and whether K counts projections (D is then divided
        by the square root of their number)."""
        device = tensors(images)[0].device
        with torch.inference_mode(False), plain_arithmetic(device):
            network = freeze(model, images)
            images = network.as_input(on_tensors(Tensor.clone, images))
            if any(tensor.dim() == 4 for tensor in tensors(images)):  # in which the inner products below are views
                network.module.to(memory_format=torch.channels_last)
                images = on_tensors(channels_last, images)
            parts = prepare(network, factors)
            size = self._images_at_once(network, parts, images)
        steps = -(-examples(images) // size)
        batches, generator = Batches.of(images).split(size), torch.Generator().manual_seed(1)
        for batch in tqdm(batches, desc="first-order scoring", unit="batch", total=steps, leave=False, disable=None):
            with torch.inference_mode(False), plain_arithmetic(device):
                D, projected = self._batch(network, factors, parts, batch, generator)
            yield batch, D, projected

    def _batch(
        self, network: FrozenNetwork, factors: Sequence[Components], parts: dict[str, list[Part]], batch: Inputs, generator: torch.Generator
    ) -> tuple[list[Tensor], bool]:
        y, calls = self._forward(network, parts, batch)
        check_finite(y, network.module, list(parts), batch)
        if calls and not y.requires_grad:
            raise InputError("the network's output carries no gradient, so estimator=first_order cannot score it; estimator=exact can")
        directions, projected = self._directions(y, counted(batch) is not None)
        # rows of several images may be one: with a random sign of each image only each one's squares stay
        signs = random_signs((len(y), 1), generator).to(y) if any(call.scattered for call in calls) else None
        buffers: dict[torch.dtype, Tensor] = {}
        D = [torch.zeros(len(y), len(directions), len(factor.S), dtype=precise(y), device=y.device) for factor in factors]
        squares: dict[int, Tensor] = {}  # of the changes by rows that belong to no image, summed over them
        current = 0

        def contract(call: Call, grad: Tensor | None) -> None:
            if grad is None or not grad.numel():  # the output does not depend on this call
                return
            dtype = precise(grad)
            if call.scattered:
                for part, z in zip(parts[call.layer], call.inner):
                    total = squares.setdefault(part.place, torch.zeros_like(D[part.place][0]))
                    total[current] += squares_of_rows(grad, z, part.U.to(dtype), part.rows, call.kind)
                return
            g = positions_of(grad, call.kind, len(y), network.batch_dims.get(call.layer, 0))
            if dtype not in buffers:
                buffers[dtype] = torch.empty(BUFFER_BYTES // dtype.itemsize, dtype=dtype, device=y.device)
            for part, z in zip(parts[call.layer], call.inner):
                D[part.place][:, current] += contract_rows(g[..., part.rows].to(dtype), z.to(dtype), part.U.to(dtype), buffers[dtype])

        leaves = [call for call in calls if call.output.is_leaf]
        # a gradient is used, and freed, as soon as it is there: all of them at once would not fit the caches
        handles = [call.output.register_hook(lambda grad, call=call: contract(call, grad)) for call in calls if not call.output.is_leaf]
        if y.requires_grad:
            for current, direction in enumerate(directions):
                last = current + 1 == len(directions)
                outputs = [call.output for call in leaves or calls]
                towards = direction.expand_as(y) if signs is None else direction * signs
                grads = torch.autograd.grad((y * towards).sum(), outputs, retain_graph=not last, allow_unused=True)
                for call, grad in zip(leaves, grads):
                    contract(call, grad)
        for handle in handles:  # a hook holds its output, which holds the hook: nothing would ever free either
            handle.remove()
        if signs is not None:
            for part in D:
                part.mul_(signs[:, :, None].to(part))
        for place, square in squares.items():
            D[place] = (D[place].square() + square / len(y)).sqrt()
        return D, projected

    def _forward(self, network: FrozenNetwork, parts: dict[str, list[Part]], batch: Inputs, raw: bool = False) -> tuple[Tensor, list[Call]]:
        """y (B, K) with its graph, and of each call of a layer its output and the values of its components; ``raw``: in the shape
        in which they come, which need not run over the images."""
        calls: list[Call] = []

        def watch(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            kind = kind_of(module)
            with torch.no_grad():
                x = layer_input(args, kwargs).detach()
                values = (kind.inner_values(module, *filters(kind, module, part.factor), x) for part in parts[name])
                dim = network.batch_dims.get(name, 0)
                known = (rows * examples(batch) for rows in network.rows_of_one.get(name, ()))
                if not raw and kind.positions(module, output) not in known:
                    network.scattered.add(name)
                apart = not raw and name not in network.scattered
                inner = [positions_of(value, kind, examples(batch), dim, name) if apart else value for value in values]
            if not output.requires_grad:
                output.requires_grad_()
            calls.append(Call(name, kind, output, inner, not apart))
            return output.clone() if network.untraced else None  # what follows may write into it

        handles = [
            network.modules[name].register_forward_hook(
                lambda module, args, kwargs, output, name=name: watch(name, module, args, kwargs, output), with_kwargs=True
            )
            for name in parts
            if name in network.modules
        ]
        try:
            with torch.enable_grad():
                return read_output(self.read, run(network.module, batch), batch), calls
        finally:
            for handle in handles:
                handle.remove()

    def _directions(self, y: Tensor, padded: bool = False) -> tuple[Tensor, bool]:
        """The combinations of outputs to differentiate (J, K): each output by itself, or random ones."""
        if y.shape[1] <= self.projections:
            return torch.eye(y.shape[1], dtype=y.dtype, device=y.device), False
        signs = random_signs((self.projections, y.shape[1]), torch.Generator().manual_seed(0), padded)
        return signs.to(y) / self.projections**0.5, True

    def _images_at_once(self, network: FrozenNetwork, parts: dict[str, list[Part]], images: Inputs) -> int:
        """How many images' activations and gradients stay within the memory limit; one batch of two images also shows that
        an image's output does not depend on the activations of another, without which nothing here is right.

        Raises:
            NotUsable: For layers no dimension of whose values runs over the images alone.
        """
        held: dict[int, int] = {}

        def count(value: Tensor) -> Tensor:
            place, size = memory_of(value)
            held[place] = size
            return value.detach()  # itself it would hold the graph that holds it

        few = cut(images, 0, 2)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            y, calls = self._forward(network, parts, few, raw=True)
        check_rows(y, few)
        for call in calls:
            rows, rest = divmod(call.output.numel() // call.kind.rows(network.modules[call.layer]), examples(few))
            if not rest:
                network.rows_of_one.setdefault(call.layer, set()).add(rows)
        if examples(few) > 1 and y.requires_grad:
            outputs = [call.output for call in calls]
            of_each = [torch.autograd.grad(y[i].sum(), outputs, retain_graph=i == 0, allow_unused=True) for i in range(2)]
            dims = [(call.layer, batch_dim(grads, call.kind)) for call, *grads in zip(calls, *of_each)]
            network.batch_dims.update((layer, dim) for layer, dim in dims if dim)
            if lost := sorted({layer for layer, dim in dims if dim != network.batch_dims.get(layer, 0)}):
                log.info("%s: no dimension of their values runs over the images, so their rows are scored as unrelated", some(lost))
                network.scattered.update(lost)
        known = {memory_of(p)[0] for p in network.module.parameters()}
        activations = sum(size for place, size in held.items() if place not in known)
        inner = sum(z.numel() for call in calls for z in call.inner) * y.element_size()
        gradients = 3 * max((call.output.numel() for call in calls), default=0) * y.element_size()
        changes = len(self._directions(y)[0]) * sum(part.U.shape[1] for layer in parts.values() for part in layer) * y.element_size()
        each = (activations + inner + gradients) / examples(few) + changes
        return max(1, min(IMAGES_AT_ONCE, int(self.memory_limit * 2**30 // each)))
