"""One pass over the calibration images that gathers every layer's statistics."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrp.batches import Batches, call, counted, tensors
from lrp.errors import NotUsable, some
from lrp.group import ALONE, Group
from lrp.layer.duplicate import measured_copy
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.combinations import combinations, differentiate, skip
from lrp.layer_statistics.limits import groups, images_at_once
from lrp.layer_statistics.positions import Positions, batch_size
from lrp.layer_statistics.tied import joined as with_uses
from lrp.layer_statistics.watched import Scattered, WatchedLayer
from lrp.matrices import LayerMatrix
from lrp.network.arithmetic import layer_input, plain_arithmetic, read_output
from lrp.network.survey import Candidates
from lrp.shelf import Shelf

GRADIENT_IMAGES = 2048  # a multiple of the images that run at once (``Batches.unit``): G has few entries, and a backward pass is slow
NEVER = "it does not run on any batch of calibration examples"
log = logging.getLogger(__name__)


def gather(
    model: nn.Module,
    candidates: Candidates,
    inputs: Batches,
    needs: Iterable[str],
    read: Callable[[Any], Tensor],
    samples: int = 65536,
    memory: float = float("inf"),
    group: Group = ALONE,
) -> dict[str, LayerStatistics]:
    """The statistics of every layer to compress on the images ``inputs`` (B, ...). ``needs``: "inputs" (C), "products" (zz),
    "magnitudes", "gradients", "outputs". ``read`` turns what the network returns into (B, K). Tokens that are padding do not count.

    The gradients are of the first 2,048 images, of one random combination of the outputs an image (signs +-1), which gives
    E[sum_k g_k g_k^T] without bias. Of n <= 256 images they are of 512 // n combinations each, at most 16, or of every output; and
    where they are few for a layer's width the moments are shrunk (``shrinkage``).

    ``memory``: bytes of activations that run at once, and bytes of sums that are held at once: layers whose sums would take more are
    gathered in several passes. What is finished lies in a file.

    The processes of a ``group`` look at their own part of the images, whose ``where`` and ``outputs`` each gets; sums are of all images.

    Raises:
        InputError: Where values are not finite.
        NotUsable: For layers that never run.
    """
    inputs, needs = Batches.of(inputs), set(needs)
    if not needs:
        return {}
    apart = {name for name, _ in _all_of(candidates, candidates.matrices) if candidates.calls[name] == 1}
    with torch.inference_mode(False):
        twin = measured_copy(model, share=not candidates.writes)
    modules: list[Any] = [*twin.modules()]
    for module in modules:
        if getattr(module, "inplace", False):
            module.inplace = False
    found, shelf = dict[str, LayerStatistics](), Shelf()
    for names in groups(candidates, needs, memory):
        chunk = images_at_once(twin, names, inputs, "gradients" in needs, memory, inputs.unit)
        chunk = batch_size(chunk, counted(inputs.example), inputs.total)
        while True:
            try:
                found |= _gather(twin, candidates, names, inputs, needs, read, samples, apart, chunk, shelf, group)
                break
            except Scattered as lost:  # which the first batch shows, or a later one
                log.info("%s: their rows cannot be told apart by example, so statistics are of all rows", some([*lost.names]))
                apart -= {*lost.names}
    return found


def _gather(
    twin: nn.Module, candidates: Candidates, names: Sequence[str], inputs: Batches, needs: set[str], read: Callable[[Any], Tensor],
    samples: int, apart: Set[str], chunk: int, shelf: Shelf, group: Group,
) -> dict[str, LayerStatistics]:  # fmt: skip
    """The same of these layers, where the rows of the layers ``apart`` are told apart by image.

    Raises:
        Scattered: For layers of which they cannot be.
        NotUsable: For layers that never run.
    """
    positions, own = Positions(candidates.positions, len(inputs), samples), inputs.shared(group)
    tokens, part = inputs.counted(), slice(own.start, own.start + len(own))
    layers = [
        WatchedLayer(name, twin.get_submodule(name), positions, tokens, needs, name in apart, matrix, part)
        for name, matrix in _all_of(candidates, names)
    ]
    lost: list[str] = []
    with group.agreed():
        try:
            _look(twin, layers, own, "gradients" in needs, read, chunk, shelf)
        except Scattered as found:
            lost = [*found.names]
    if lost := [name for held in group.all(lost) for name in held]:
        raise Scattered([*dict.fromkeys(lost)])
    for layer in layers if group.size > 1 else ():
        layer.join(group)
    if never := {layer.name: NEVER for layer in layers if not layer.calls}:
        raise NotUsable(never, "decomposition=svd and compensation=none do not need it")
    found = {layer.name: layer.statistics(min(len(inputs), GRADIENT_IMAGES), shelf) for layer in layers}
    return {name: with_uses(candidates.matrices[name], found) for name in names}


def _look(
    twin: nn.Module,
    layers: Sequence[WatchedLayer],
    inputs: Batches,
    gradients: bool,
    read: Callable[[Any], Tensor],
    chunk: int,
    shelf: Shelf,
) -> None:
    """Run the images of this process through the network, while each layer looks at them.

    Raises:
        Scattered: For layers whose rows cannot be told apart by image.
    """
    generator, times = torch.Generator().manual_seed(0), combinations(inputs.total)
    starts = tqdm(range(0, len(inputs), chunk), desc="layer statistics", unit="batch", leave=False, disable=None)
    for start, batch in zip(starts, inputs.split(chunk), strict=True):
        at = inputs.start + start
        with_gradients, padded = gradients and at < GRADIENT_IMAGES, counted(batch) is not None
        for layer in layers:
            layer.begin(at)
        with torch.inference_mode(False), plain_arithmetic(tensors(batch)[0].device), torch.set_grad_enabled(with_gradients):
            calls: list[tuple[WatchedLayer, Tensor]] = []
            with _watched(layers, slice(start, start + chunk), calls if with_gradients else None, counted(batch), shelf):
                y = read_output(read, call(twin, batch), batch)
            if lost := [layer.name for layer in layers if layer.where is not None and layer.calls != 1 + start // chunk]:
                raise Scattered(lost)
            if with_gradients:
                for _ in range(0, inputs.start if start == 0 else 0, chunk):
                    skip(y, chunk, generator, padded, times)
                differentiate(y, calls, generator, padded, times)
        if inputs.group.fixed:
            for layer in layers:
                layer.flush()


def _all_of(candidates: Candidates, names: Iterable[str]) -> list[tuple[str, LayerMatrix]]:
    """These layers and those that run and hold the weight of one of them, and the matrix of each."""
    matrices = [candidates.matrices[name] for name in names]
    return [(name, matrix) for matrix in matrices for name in (matrix.name, *(use.name for use in matrix.uses if use.positions))]


@contextlib.contextmanager
def _watched(
    layers: Sequence[WatchedLayer], images: slice, calls: list[tuple[WatchedLayer, Tensor]] | None, mask: Tensor | None, shelf: Shelf
) -> Iterator[None]:
    """While these images run through the network each layer looks at them, where they count by ``mask``; ``calls`` collects outputs that
    can be differentiated by."""

    def watch(layer: WatchedLayer, args: Any, kwargs: Any, z: Tensor) -> Tensor | None:
        layer.look(layer_input(args, kwargs), z, images, mask, shelf)
        if calls is None:
            return None
        calls.append((layer, z.requires_grad_() if z.is_leaf else z))
        return z.clone()  # what follows may write into it

    handles = [
        layer.module.register_forward_hook(lambda _, args, kwargs, z, layer=layer: watch(layer, args, kwargs, z), with_kwargs=True)
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
