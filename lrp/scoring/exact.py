"""The paper's definition of a component's perturbation: remove it alone, run the network, compare the outputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch.nn import functional as F
from tqdm import tqdm

from lrp.errors import check_float
from lrp.files import write_whole
from lrp.matrices import Factors
from lrp.scoring.downstream import Downstream
from lrp.scoring.moments import Moments, read_tensors

log = logging.getLogger(__name__)

CPU_BATCH_BYTES = 96 * 2**20  # on a CPU larger batches only leave the caches (timed on VGG16: 64 to 256 images are best)


@dataclass(frozen=True)
class ExactEstimator:
    """Moments of y - y_b, y_b the network's output without one component (section 3.3 of the paper), y in eval mode.

    Without component i a layer gives its dense output less s_i u_i (v_i . x): the dense activations are computed once,
    this rank-one change is applied, and only what follows the layer runs, for several components in one batch whose
    activations stay within ``memory_limit`` (GiB). A killed run goes on after the last finished layer.
    """

    name: ClassVar[str] = "exact"
    memory_limit: float = 1.0

    def __post_init__(self) -> None:
        check_float("estimator.memory_limit", self.memory_limit, above=0)

    @property
    def identity(self) -> str:
        """What of the estimator its result depends on; the memory limit changes rounding alone."""
        return self.name

    @torch.inference_mode()
    def __call__(
        self, model: nn.Module, factors: Sequence[Factors], images: Tensor, partial: Path | None = None
    ) -> tuple[list[Moments], float]:
        """The moments of every block's components on ``images`` (B, ...), normalised, and the seconds that this took, those
        of a killed run included; ``partial``: a folder for finished layers. Raises InputError for a network that torch.fx cannot trace or a layer that runs more than once."""
        network = Downstream(model)
        layers: dict[str, list[int]] = {}
        for i, factor in enumerate(factors):
            layers.setdefault(factor.block.layer, []).append(i)
        size = self._images_at_once(network, images)
        expected = self._expected(network, network.record(images[:16]), factors, layers) * len(images)
        components = sum(len(factor.S) for factor in factors)
        log.info("exact scoring: %s components x %d images, about %s", f"{components:,}", len(images), _duration(expected))
        sums = [torch.zeros(2, len(factor.S), 1, dtype=torch.float64) for factor in factors]  # K is known after the first
        seconds = 0.0
        total = components * -(-len(images) // size)
        with tqdm(total=total, desc="exact scoring", unit="component", smoothing=0.05, disable=None) as bar:
            for start in range(0, len(images), size):
                batch, known = images[start : start + size], None
                for number, (name, places) in enumerate(layers.items()):
                    file = partial / f"{start}-{size}-{number}.safetensors" if partial else None
                    stored = read_tensors(file) if file else None
                    if stored is None:
                        known = network.record(batch) if known is None else known
                        stored = self._layer(network, known, name, [factors[i] for i in places], bar)
                        if file:
                            write_whole(file, lambda path, tensors=stored: save_file(tensors, path))
                    else:
                        bar.update(len(stored["moments"][0]))
                    seconds += float(stored["seconds"])
                    for i, part in zip(places, stored["moments"].split([len(factors[i].S) for i in places], dim=1)):
                        sums[i] = sums[i] + len(batch) / len(images) * part
        return [Moments(first, second) for first, second in sums], seconds

    def _layer(
        self, network: Downstream, known: dict[fx.Node, Any], name: str, factors: Sequence[Factors], bar: tqdm
    ) -> dict[str, Tensor]:
        """Of all components of a layer, "moments" (2, R, K) on one batch of images and the "seconds" they took."""
        start = time.perf_counter()
        moments = torch.cat([self._block(network, known, name, factor, bar) for factor in factors], dim=1)
        return {"moments": moments, "seconds": torch.tensor(time.perf_counter() - start, dtype=torch.float64)}

    def _block(self, network: Downstream, known: dict[fx.Node, Any], name: str, factor: Factors, bar: tqdm) -> Tensor:
        """First and second moments (2, R, K) of one block's components."""
        node = network.layer_node(name)
        x, y, output = known[node.args[0]], known[node], known[network.nodes[-1]].double()
        chunk = self._chunk(network, node, known)
        moments = []
        for start in range(0, len(factor.S), chunk):
            change = _rank_one(network, name, factor, slice(start, start + chunk), x)
            value = torch.sub(y[None], change, out=change).flatten(0, 1)
            copies = len(change)
            y_b = network.run_from(node, value, known, copies).double()
            difference = output - y_b.unflatten(0, (copies, len(x))).flatten(2)
            moments.append(torch.stack([difference.mean(1), difference.square().mean(1)]).cpu())
            bar.update(copies)
        return torch.cat(moments, dim=1)

    def _images_at_once(self, network: Downstream, images: Tensor) -> int:
        """How many images' dense activations stay within the memory limit."""
        held = sum(_bytes(value) for node, value in network.record(images[:1]).items() if node.op != "get_attr")
        return min(len(images), max(1, int(self.memory_limit * 2**30 // held)))

    def _chunk(self, network: Downstream, node: fx.Node, known: dict[fx.Node, Any]) -> int:
        """How many components fit: what a node reads and writes, at the largest one, bounds the memory."""
        limit = self.memory_limit * 2**30
        if known[node].device.type == "cpu":
            limit = min(limit, CPU_BATCH_BYTES)
        largest = 2 * _bytes(known[node])
        for step in network.after(node):
            largest = max(largest, _bytes(known[step]) + sum(_bytes(known[source]) for source in step.all_input_nodes))
        return max(1, int(limit // largest))

    def _expected(
        self, network: Downstream, known: dict[fx.Node, Any], factors: Sequence[Factors], layers: dict[str, list[int]]
    ) -> float:
        """Seconds an image that the whole will take, from one batch of components of each layer, timed on a few images."""
        seconds = 0.0
        for name, places in layers.items():
            node = network.layer_node(name)
            copies = min(8, self._chunk(network, node, known))
            value = known[node].repeat(copies, *[1] * (known[node].dim() - 1))
            start = time.perf_counter()
            network.run_from(node, value, known, copies)
            seconds += (time.perf_counter() - start) / len(value) * sum(len(factors[i].S) for i in places)
        return seconds


def _rank_one(network: Downstream, name: str, factor: Factors, which: slice, x: Tensor) -> Tensor:
    """s_i u_i (v_i . x) for some components of a block, as (components, B, M, ...): what the layer's output loses."""
    module, block = network.modules[name], factor.block
    U = (factor.U[:, which] * factor.S[which]).T
    if name in network.scale:
        U = U * network.scale[name][block.row_start : block.row_stop].double().cpu()
    full = torch.zeros(len(U), module.weight[0].numel(), dtype=x.dtype, device=x.device)
    full[:, block.col_start : block.col_stop] = factor.Vh[which].to(x)
    rows = torch.zeros(len(U), len(module.weight), dtype=x.dtype, device=x.device)
    rows[:, block.row_start : block.row_stop] = U.to(x)
    if isinstance(module, nn.Linear):
        return torch.einsum("b...r,rm->rb...m", F.linear(x, full), rows)
    if module.padding_mode != "zeros":
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
    padding = module.padding if module.padding_mode == "zeros" else 0
    z = F.conv2d(x, full.view(len(U), *module.weight.shape[1:]), None, module.stride, padding, module.dilation)
    return rows[:, None, :, None, None] * z.transpose(0, 1)[:, :, None]


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
