"""The paper's definition of a component's perturbation: remove it alone, run the network, compare the outputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from tqdm import tqdm

from lrp.batches import Batches, Inputs, call, cut, examples, tensors
from lrp.entries import read_entry, write_entry
from lrp.estimator.base import Estimator
from lrp.estimator.cache import moments_key
from lrp.estimator.change import changes
from lrp.estimator.moments import Moments
from lrp.matrices import Components, Use, seen_by
from lrp.network.arithmetic import check_finite, layer_input, plain_arithmetic, read_output
from lrp.network.frozen import FrozenNetwork, freeze

log = logging.getLogger(__name__)

CPU_BATCH_BYTES = 96 * 2**20  # on a CPU larger batches only leave the caches (timed on VGG16: 64 to 256 images are best)


@dataclass(frozen=True)
class ExactEstimator(Estimator):
    """Moments of y - y_b, y_b the network's output without one component (section 3.3 of the paper).

    Without component i a layer gives its dense output less s_i u_i (v_i . x): the dense activations are computed once,
    this rank-one change is applied, and only what follows the layer runs, for several components in one batch whose
    activations stay within ``memory_limit``. A layer that torch.fx does not show as one call in the network's graph is
    watched by a hook instead, and the whole network runs for each of its components. A killed
    run goes on after the last finished layer.
    """

    name: ClassVar[str] = "exact"
    ties: ClassVar[bool] = True

    @torch.inference_mode()
    def __call__(
        self, model: nn.Module | FrozenNetwork, factors: Sequence[Components], images: Inputs, partial: Path | None = None
    ) -> tuple[list[Moments], float]:
        """E[y - y_b] and E[(y - y_b)^2] of each block's components over the images (B, ...), and the seconds that this took, those of
        a killed run included. ``partial`` is a folder for unfinished work; None: nothing is kept."""
        with torch.inference_mode(False):
            network = freeze(model, images)
        layers: dict[str, list[int]] = {}
        for i, factor in enumerate(factors):
            layers.setdefault(factor.block.layer, []).append(i)
        images = network.as_input(images)
        with plain_arithmetic(tensors(images)[0].device):
            return self._score(network, factors, images, layers, partial)

    def _score(
        self, network: FrozenNetwork, factors: Sequence[Components], images: Inputs, layers: dict[str, list[int]], partial: Path | None
    ) -> tuple[list[Moments], float]:
        count, size = examples(images), self._images_at_once(network, images)
        components = sum(factor.count for factor in factors)
        alone, expected = self._try(network, _first(images, 16), factors, layers)
        log.info("exact scoring: %s components x %d images, about %s", f"{components:,}", count, _duration(expected * count))
        whole = [name for name in layers if network.layer_node(name) is None]
        if whole:
            which = f"{len(whole)} of {len(layers)} layers, {whole[0]} the first" if len(whole) < len(layers) else "every layer"
            why = f"torch.fx cannot trace it: {network.untraced}" if network.untraced else "in its graph they are not one call each"
            log.warning("exact scoring: the whole network runs for each component of %s (%s)", which, why)
        sums = [torch.zeros(2, factor.count, 1, dtype=torch.float64) for factor in factors]  # K is known after the first
        seconds = 0.0
        key = moments_key(network, network.module, factors, images, self.identity) if partial else ""
        total = components * -(-count // size)
        with tqdm(total=total, desc="exact scoring", unit="component", smoothing=0.05, disable=None) as bar:
            for start, batch in zip(range(0, count, size), Batches.of(images).split(size), strict=True):
                known = None
                for number, (name, places) in enumerate(layers.items()):
                    file = partial / f"{start}-{size}-{number}.safetensors" if partial else None
                    stored = read_entry(file, f"{key} {file.stem}") if file else None
                    if stored is None:
                        if known is None:
                            known = network.record(batch)
                            y = read_output(self.read, known[network.nodes[-1]] if known else call(network.module, batch), batch).double()
                            check_finite(y, network.module, list(layers), batch)
                        began = time.perf_counter()
                        parts = [self._block(network, known, factors[i], batch, y, name in alone, bar) for i in places]
                        took = torch.tensor(time.perf_counter() - began, dtype=torch.float64)
                        stored = {"moments": torch.cat(parts, dim=1), "seconds": took}
                        if file:
                            write_entry(file, stored, f"{key} {file.stem}")
                    else:
                        bar.update(len(stored["moments"][0]))
                    seconds += float(stored["seconds"])
                    for i, part in zip(places, stored["moments"].split([factors[i].count for i in places], dim=1)):
                        sums[i] = sums[i] + examples(batch) / count * part
        return [Moments(first, second) for first, second in sums], seconds

    def _block(
        self, network: FrozenNetwork, known: dict[fx.Node, Any], factor: Components, batch: Inputs, y: Tensor, alone: bool, bar: tqdm
    ) -> Tensor:
        """First and second moments (2, R, K) of one block's components on one batch of images, whose outputs are y."""
        node = network.layer_node(factor.block.layer)
        chunk = 1 if node is None or alone else self._chunk(network, node, known)
        moments = []
        for start in range(0, factor.count, chunk):
            which = slice(start, start + chunk)
            if node is None:
                result, copies = self._with_hook(network, factor, which, batch), 1
            else:
                change = changes(network, factor, which, known[layer_input(node.args, node.kwargs)])
                value = torch.sub(known[node][None], change, out=change).flatten(0, 1)
                copies = len(change)
                result = network.run_from(node, value, known, copies)
            y_b = read_output(self.read, result, batch, copies).double()
            moments.append(self._found(y, y_b.unflatten(0, (copies, len(y)))).cpu())
            bar.update(copies)
        return torch.cat(moments, dim=1)

    def _found(self, y: Tensor, y_b: Tensor) -> Tensor:
        """What is kept of the outputs y (B, K) and those without each of some components (R, B, K): (2, R, ...)."""
        difference = y - y_b
        return torch.stack([difference.mean(1), difference.square().mean(1)])

    def _with_hook(self, network: FrozenNetwork, factor: Components, which: slice, batch: Inputs) -> Any:
        """What the whole network returns without one component, wherever and however often its layer runs, and all that hold its weight."""

        def without(use: Use) -> Any:
            own = seen_by(factor, use)
            return lambda _, args, kwargs, output: output - changes(network, own, which, layer_input(args, kwargs))[0]

        uses = network.uses(factor.block.layer)  # none of one that never runs, as the graph shows
        handles = [network.modules[use.name].register_forward_hook(without(use), with_kwargs=True) for use in uses]
        try:
            return call(network.module, batch)
        finally:
            for handle in handles:
                handle.remove()

    def _images_at_once(self, network: FrozenNetwork, images: Inputs) -> int:
        """How many images' dense activations stay within the memory limit."""
        known = network.record(_first(images, 1))
        held = sum(_bytes(value) for node, value in known.items() if node.op != "get_attr") or 64 * sum(
            _bytes(tensor[:1]) for tensor in tensors(images)
        )
        return min(examples(images), max(1, int(self.memory_limit * 2**30 // held)))

    def _chunk(self, network: FrozenNetwork, node: fx.Node, known: dict[fx.Node, Any]) -> int:
        """How many components fit: what a node reads and writes, at the largest one, bounds the memory."""
        limit = self.memory_limit * 2**30
        if known[node].device.type == "cpu":
            limit = min(limit, CPU_BATCH_BYTES)
        largest = 2 * _bytes(known[node])
        for step in network.after(node):
            largest = max(largest, _bytes(known[step]) + sum(_bytes(known[source]) for source in step.all_input_nodes))
        return max(1, int(limit // largest))

    def _try(
        self, network: FrozenNetwork, images: Inputs, factors: Sequence[Components], layers: dict[str, list[int]]
    ) -> tuple[set[str], float]:
        """The layers after which copies of a batch cannot run as one larger batch (a network may reshape by a fixed batch
        size, or have its batch in another dimension), and the seconds an image that the whole will take."""
        alone, seconds = set(), 0.0
        known = network.record(images)
        for name, places in layers.items():
            node = network.layer_node(name)
            components = sum(factors[i].count for i in places)
            start = time.perf_counter()
            if node is None:
                call(network.module, images)
                seconds += (time.perf_counter() - start) / examples(images) * components
                continue
            y, copies = read_output(self.read, known[network.nodes[-1]], images), min(8, self._chunk(network, node, known))
            try:
                value = known[node].repeat(copies, *[1] * (known[node].dim() - 1))
                y_copies = read_output(self.read, network.run_from(node, value, known, copies), images, copies)
                same = torch.allclose(y_copies, y.repeat(copies, 1), rtol=1e-2, atol=1e-3 * float(y.abs().max()))
            except (RuntimeError, ValueError, IndexError, TypeError):
                same = False
            if not same and bool(torch.isfinite(y).all()):
                alone.add(name)
                copies = 1
            seconds += (time.perf_counter() - start) / (copies * examples(images)) * components
        return alone, seconds


def _first(images: Inputs, count: int) -> Inputs:
    return cut(images, 0, count)


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
