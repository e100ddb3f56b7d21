"""One pass over the calibration images that gathers every layer's statistics."""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrp.batches import Batches, call, counted, tensors
from lrp.errors import InputError, NotUsable, some
from lrp.layer.build import kind_of
from lrp.layer.duplicate import measured_copy
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.combinations import combinations, differentiate
from lrp.layer_statistics.limits import groups, images_at_once
from lrp.layer_statistics.positions import Positions, columns, kept, kept_rows, outputs, scattered
from lrp.layer_statistics.shrinkage import shrunk
from lrp.layer_statistics.sums import Sums
from lrp.layer_statistics.tied import joined as with_uses
from lrp.matrices import LayerMatrix
from lrp.network.arithmetic import layer_input, plain_arithmetic, read_output
from lrp.network.survey import Candidates
from lrp.shelf import Shelf, joined

CHUNK = 128  # images that run at once, if memory admits them: a power of two
NEVER = "it does not run on any batch of calibration examples"
log = logging.getLogger(__name__)

GRADIENT_IMAGES = 2048  # a multiple of CHUNK: G has few entries, and a backward pass is slow


class _Layer:
    """What is gathered of one layer, batch by batch.

    Attributes:
        needs: What of it is asked for.
        count: How many positions it has for one image.
        share: Of its rows that are looked at, where they belong to no image.
        calls: How often it ran.
        where: The positions that are looked at (images, P); None of a layer whose rows belong to no image that is known: it runs several
            times, or on another number of rows than the images have (experts, windows, regions). Rows are drawn from each call then.
        inputs: Sums over these positions of x x^T.
        magnitudes: The sum over these positions of |x| (groups, N), and over how many; None before the first.
        products: Sums over these positions of z z^T, z without the bias.
        outputs: The outputs there, (B, P, M) for each batch.
        gradients: The sum over all positions of g g^T (M, M), or of its diagonal (M,); None before the first.
        differentiated: At how many positions, of all images together.
    """

    def __init__(
        self, name: str, module: Any, positions: Positions, tokens: Tensor | None, needs: Set[str], apart: bool, matrix: LayerMatrix
    ) -> None:
        self.name, self.module, self.count, self.needs = name, module, positions.counts[name], needs
        if matrix.uses:  # what the sum of several metrics is made of
            self.needs = needs = {"inputs", *needs & {"gradients"}}
        self.diagonal = matrix.lookup and not kind_of(module).lookup  # as many rows as there are words
        self.lookup = kind_of(module).lookup
        self.where = positions.of(name, tokens) if apart and not self.lookup else None
        if self.where is None and "outputs" in needs:  # which could not be told apart again: what the fit needs is found from its inputs
            self.needs = {*needs, "inputs"}
        self.share = positions.share(name, tokens)  # of the positions that are looked at
        self.calls = self.samples = 0
        self.generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        self.inputs, self.products = Sums(), Sums()
        self.counts: Tensor | None = None
        self.magnitudes: Tensor | None = None
        self.outputs: list[Any] = []  # tensors, or handles of the shelf
        self.gradients: Tensor | None = None
        self.differentiated = 0.0

    @torch.no_grad()
    def look(self, x: Tensor, z: Tensor, images: slice, mask: Tensor | None, shelf: Shelf) -> None:
        """What the layer reads, ``x``, and gives, ``z``, for some images, where it counts by ``mask``.

        Raises:
            _Scattered: Where rows cannot be told apart by image.
        """
        if self.where is None:
            if z.numel():  # or it is an expert that no token chose
                self.calls += 1
                self._look_at_rows(x, z, mask)
            return
        self.calls += 1
        at = self.where[images]
        if not kind_of(self.module).by_example(x, len(at), self.count):
            raise _Scattered([self.name])
        keep = kept(mask, at, self.count, x)
        rows = slice(None) if keep is None else keep
        self._look_at_inputs(x.detach(), at, rows)
        if not self.needs & {"products", "outputs"}:
            return
        sampled = outputs(self.module, z.detach(), at)
        if "products" in self.needs:
            self.products.add((sampled if self.module.bias is None else sampled - self.module.bias)[rows, None])
        if "outputs" in self.needs:
            self.outputs.append(shelf.put(sampled.unflatten(0, at.shape)))

    def _look_at_inputs(self, x: Tensor, at: Tensor, rows: Tensor | slice = slice(None)) -> None:
        if not self.needs & {"inputs", "magnitudes"}:
            return
        read = columns(self.module, x, at)[rows]
        if "inputs" in self.needs:
            self.inputs.add(read)
        if "magnitudes" in self.needs:
            total = read.double().abs().sum(0)
            self.magnitudes = total if self.magnitudes is None else self.magnitudes.add_(total)
            self.samples += len(read)

    def _look_at_rows(self, x: Tensor, z: Tensor, mask: Tensor | None) -> None:
        keep = None if mask is None else kept_rows(mask, x, kind_of(self.module).positions(self.module, z))
        if self.lookup:
            found = kind_of(self.module).count(self.module, x if keep is None else x.flatten()[keep])
            self.counts = found if self.counts is None else self.counts + found
            return
        x, z, at = scattered(self.module, x.detach(), z.detach(), self.share, self.generator, keep)
        if not len(x):
            return
        self._look_at_inputs(x, at)
        if "products" in self.needs:
            sampled = outputs(self.module, z, at)
            self.products.add((sampled if self.module.bias is None else sampled - self.module.bias)[:, None])

    def add_gradients(self, z: Tensor, grad: Tensor | None, passes: int) -> None:
        """The gradient with respect to the output ``z`` of some images, one of so many ``passes``; None where nothing depends on it."""
        features = kind_of(self.module).features_last(torch.zeros_like(z) if grad is None else grad)
        rows = features.reshape(-1, features.shape[-1])
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        square = rows.square().sum(0) if self.diagonal else rows.T @ rows
        self.gradients = square.double() if self.gradients is None else self.gradients.add_(square)
        self.differentiated += len(rows) / passes

    def statistics(self, images: int, shelf: Shelf) -> LayerStatistics:
        """What was gathered of so many images; what is large lies on the shelf.

        Raises:
            InputError: Where it is not finite.
        """
        C, G, mean, magnitudes = None, None, None, None
        zz = _mean(self.products)[0] if "products" in self.needs and not self.lookup else None
        if self.counts is not None:
            shares = (self.counts + 1).double().cpu()
            C = magnitudes = shares[None] / shares.sum()
        elif "inputs" in self.needs:
            C = _mean(self.inputs)
            mean = self.inputs.x.div(self.inputs.count).cpu() if self.inputs.x is not None else None
        if self.magnitudes is not None:
            magnitudes = self.magnitudes.div_(self.samples).cpu()
        if "gradients" in self.needs:
            if self.gradients is None:  # it did not run on the first images
                rows = kind_of(self.module).rows(self.module)
                self.gradients = torch.zeros(*[rows] * (1 if self.diagonal else 2), dtype=torch.float64)
            G, self.gradients = self.gradients.div_(min(images, GRADIENT_IMAGES)).cpu(), None
            G = G if self.diagonal else shrunk(G, round(self.differentiated))
        if any(part is not None and not bool(torch.isfinite(part).all()) for part in (C, G, zz, magnitudes)):
            raise InputError(
                f"layer {self.name}: its inputs or gradients on the calibration images are not finite, so it cannot be decomposed"
            )
        z = joined(self.outputs) if self.outputs else None
        C, G, zz = (None if part is None else shelf.put(part) for part in (C, G, zz))
        return LayerStatistics(kind_of(self.module).rows(self.module), C, G, self.where, z, zz, mean, magnitudes)


class _Scattered(Exception):
    """Layers whose rows belong to no image that is known."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names


def _mean(sums: Sums) -> Tensor:
    """The mean of x x^T (groups, N, N) over all that was added."""
    total = sums.flush().xx
    assert total is not None, "there is at least one batch"
    return total.div_(sums.count).cpu()


def gather(
    model: nn.Module,
    candidates: Candidates,
    inputs: Batches,
    needs: Iterable[str],
    read: Callable[[Any], Tensor],
    samples: int = 65536,
    memory: float = float("inf"),
) -> dict[str, LayerStatistics]:
    """The statistics of every layer to compress on the images ``inputs`` (B, ...). ``needs``: "inputs" (C), "products" (zz),
    "magnitudes", "gradients", "outputs". ``read`` turns what the network returns into (B, K). Tokens that are padding do not count.

    The gradients are of the first 2,048 images, of one random combination of the outputs an image (signs +-1), which gives
    E[sum_k g_k g_k^T] without bias. Of n <= 256 images they are of 512 // n combinations each, at most 16, or of every output; and
    where they are few for a layer's width the moments are shrunk (``shrinkage``).

    ``memory``: bytes of activations that run at once, and bytes of sums that are held at once: layers whose sums would take more are
    gathered in several passes. What is finished lies in a file.

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
        chunk = images_at_once(twin, names, inputs, "gradients" in needs, memory, CHUNK)
        while True:
            try:
                found |= _gather(twin, candidates, names, inputs, needs, read, samples, apart, chunk, shelf)
                break
            except _Scattered as lost:  # which the first batch shows, or a later one
                log.info("%s: their rows cannot be told apart by example, so statistics are of all rows", some([*lost.names]))
                apart -= {*lost.names}
    return found


def _gather(
    twin: nn.Module, candidates: Candidates, names: Sequence[str], inputs: Batches, needs: set[str], read: Callable[[Any], Tensor],
    samples: int, apart: Set[str], chunk: int, shelf: Shelf,
) -> dict[str, LayerStatistics]:  # fmt: skip
    """The same of these layers, where the rows of the layers ``apart`` are told apart by image.

    Raises:
        _Scattered: For layers of which they cannot be.
        NotUsable: For layers that never run.
    """
    positions = Positions(candidates.positions, len(inputs), samples)
    tokens = inputs.counted()
    layers = [
        _Layer(name, twin.get_submodule(name), positions, tokens, needs, name in apart, matrix)
        for name, matrix in _all_of(candidates, names)
    ]
    generator = torch.Generator().manual_seed(0)
    starts = tqdm(range(0, len(inputs), chunk), desc="layer statistics", unit="batch", leave=False, disable=None)
    for start, batch in zip(starts, inputs.split(chunk), strict=True):
        with_gradients = "gradients" in needs and start < GRADIENT_IMAGES
        with torch.inference_mode(False), plain_arithmetic(tensors(batch)[0].device), torch.set_grad_enabled(with_gradients):
            calls: list[tuple[_Layer, Tensor]] = []
            with _watched(layers, slice(start, start + chunk), calls if with_gradients else None, counted(batch), shelf):
                y = read_output(read, call(twin, batch), batch)
            if lost := [layer.name for layer in layers if layer.where is not None and layer.calls != 1 + start // chunk]:
                raise _Scattered(lost)
            if with_gradients:
                differentiate(y, calls, generator, counted(batch) is not None, combinations(len(inputs)))
    if never := {layer.name: NEVER for layer in layers if not layer.calls}:
        raise NotUsable(never, "decomposition=svd and compensation=none do not need it")
    found = {layer.name: layer.statistics(len(inputs), shelf) for layer in layers}
    return {name: with_uses(candidates.matrices[name], found) for name in names}


def _all_of(candidates: Candidates, names: Iterable[str]) -> list[tuple[str, LayerMatrix]]:
    """These layers and those that run and hold the weight of one of them, and the matrix of each."""
    matrices = [candidates.matrices[name] for name in names]
    return [(name, matrix) for matrix in matrices for name in (matrix.name, *(use.name for use in matrix.uses if use.positions))]


@contextlib.contextmanager
def _watched(
    layers: Sequence[_Layer], images: slice, calls: list[tuple[_Layer, Tensor]] | None, mask: Tensor | None, shelf: Shelf
) -> Iterator[None]:
    """While these images run through the network each layer looks at them, where they count by ``mask``; ``calls`` collects outputs that
    can be differentiated by."""

    def watch(layer: _Layer, args: Any, kwargs: Any, z: Tensor) -> Tensor | None:
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
