"""One pass over the calibration images that gathers every layer's statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrp.batches import Batches, call, counted, on_tensors, tensors
from lrp.errors import InputError, NotUsable
from lrp.layer.build import kind_of
from lrp.layer.duplicate import measured_copy
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.positions import Positions, columns, kept, outputs
from lrp.layer_statistics.sums import Sums
from lrp.network.arithmetic import layer_input, plain_arithmetic, random_signs, read_output
from lrp.network.survey import Candidates

CHUNK = 128  # images that run at once
NO_POSITIONS = "it does not read the same number of positions for every image"
NOT_ONCE = "it does not run once on every batch of calibration examples"
GRADIENT_IMAGES = 2048  # a multiple of CHUNK: G has few entries, and a backward pass is slow


class _Layer:
    """What is gathered of one layer, batch by batch.

    Attributes:
        needs: What of it is asked for.
        count: How many positions it has for one image.
        usable: Whether what it reads can be told apart by position.
        calls: How often it ran.
        where: The positions that are looked at (images, P).
        inputs: Sums over these positions of x x^T.
        products: Sums over these positions of z z^T, z without the bias.
        outputs: The outputs there, (B, P, M) for each batch.
        gradients: The sum over all positions of g g^T (M, M); None before the first.
    """

    def __init__(self, name: str, module: Any, count: int, where: Tensor, needs: Set[str]) -> None:
        self.name, self.module, self.count, self.where, self.needs = name, module, count, where, needs
        self.usable, self.calls = True, 0
        self.inputs, self.products = Sums(), Sums()
        self.outputs: list[Tensor] = []
        self.gradients: Tensor | None = None

    @torch.no_grad()
    def look(self, x: Tensor, z: Tensor, at: Tensor, mask: Tensor | None = None) -> None:
        """What the layer reads, ``x``, and gives, ``z``, for some images, at the positions ``at`` (B, P), if they count by ``mask``."""
        self.calls += 1
        if not kind_of(self.module).by_example(x, len(at), self.count):
            self.usable = False
        if not self.usable:
            return
        keep = kept(mask, at, self.count, x)
        rows = slice(None) if keep is None else keep
        if "inputs" in self.needs:
            self.inputs.add(columns(self.module, x.detach(), at)[rows])
        if not self.needs & {"products", "outputs"}:
            return
        sampled = outputs(self.module, z.detach(), at)
        if "products" in self.needs:
            self.products.add((sampled if self.module.bias is None else sampled - self.module.bias)[rows, None])
        if "outputs" in self.needs:
            self.outputs.append(sampled.unflatten(0, at.shape))

    def add_gradients(self, z: Tensor, grad: Tensor | None) -> None:
        """The gradient with respect to the output ``z`` of some images; None where nothing depends on it."""
        features = kind_of(self.module).features_last(torch.zeros_like(z) if grad is None else grad)
        rows = features.reshape(-1, features.shape[-1])
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        square = rows.T @ rows
        self.gradients = square.double() if self.gradients is None else self.gradients.add_(square)

    def statistics(self) -> LayerStatistics:
        """What was gathered.

        Raises:
            InputError: Where it is not finite.
        """
        C, G = _mean(self.inputs) if "inputs" in self.needs else None, None
        if "gradients" in self.needs:
            assert self.gradients is not None, "there is at least one batch"
            G, self.gradients = self.gradients.div_(min(len(self.where), GRADIENT_IMAGES)).cpu(), None
        zz = _mean(self.products)[0] if "products" in self.needs else None
        if any(part is not None and not bool(torch.isfinite(part).all()) for part in (C, G, zz)):
            raise InputError(
                f"layer {self.name}: its inputs or gradients on the calibration images are not finite, so it cannot be decomposed"
            )
        z = torch.cat(self.outputs) if "outputs" in self.needs else None
        return LayerStatistics(kind_of(self.module).rows(self.module), C, G, self.where, z, zz)


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
) -> dict[str, LayerStatistics]:
    """The statistics of every layer to compress on the images ``inputs`` (B, ...). ``needs``: "inputs" (C), "products" (zz),
    "gradients", "outputs". ``read`` turns what the network returns into (B, K). Tokens that are padding do not count.

    The gradients are of the first 2,048 images, of one random combination of the outputs an image (signs +-1), which gives
    E[sum_k g_k g_k^T] without bias.

    Raises:
        InputError: Where values are not finite.
        NotUsable: For layers that do not read the same number of positions for every image, and for those that a batch does not reach.
    """
    inputs, needs = Batches.of(inputs), set(needs)
    if not needs:
        return {}
    with torch.inference_mode(False):
        twin = measured_copy(model)
    modules: list[Any] = [*twin.modules()]
    for module in modules:
        if getattr(module, "inplace", False):
            module.inplace = False
    positions = Positions(candidates.positions, len(inputs), samples)
    tokens = inputs.counted()
    layers = [
        _Layer(name, twin.get_submodule(name), positions.counts[name], positions.of(name, tokens), needs) for name in candidates.matrices
    ]
    generator = torch.Generator().manual_seed(0)
    starts = tqdm(range(0, len(inputs), CHUNK), desc="layer statistics", unit="batch", leave=False, disable=None)
    for start, batch in zip(starts, inputs.split(CHUNK), strict=True):
        with_gradients = "gradients" in needs and start < GRADIENT_IMAGES
        with torch.inference_mode(False), plain_arithmetic(tensors(batch)[0].device), torch.set_grad_enabled(with_gradients):
            calls: list[tuple[_Layer, Tensor]] = []
            with _watched(layers, slice(start, start + CHUNK), calls if with_gradients else None, counted(batch)):
                y = read_output(read, call(twin, on_tensors(Tensor.clone, batch)), batch)
            lost = {layer.name: NO_POSITIONS for layer in layers if not layer.usable}
            lost |= {layer.name: NOT_ONCE for layer in layers if layer.calls != 1 + start // CHUNK}
            if lost:
                raise NotUsable(lost, "decomposition=svd and compensation=none do not need it")
            if with_gradients:
                _differentiate(y, calls, generator, counted(batch) is not None)
    return {layer.name: layer.statistics() for layer in layers}


@contextlib.contextmanager
def _watched(layers: Sequence[_Layer], images: slice, calls: list[tuple[_Layer, Tensor]] | None, mask: Tensor | None) -> Iterator[None]:
    """While these images run through the network each layer looks at them, where they count by ``mask``; ``calls`` collects outputs that
    can be differentiated by."""

    def watch(layer: _Layer, args: Any, kwargs: Any, z: Tensor) -> Tensor | None:
        layer.look(layer_input(args, kwargs), z, layer.where[images], mask)
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


def _differentiate(y: Tensor, calls: Sequence[tuple[_Layer, Tensor]], generator: torch.Generator, padded: bool) -> None:
    """Show each layer the gradients of one random combination of the outputs y (B, K) of each image.

    Raises:
        InputError: For an output that carries no gradient.
    """
    if calls and not y.requires_grad:
        raise InputError(
            "the network's output carries no gradient, so decomposition=two_sided and compensation.metric=gradient cannot "
            "be used; decomposition=activation and compensation.metric=plain can"
        )
    signs = random_signs((len(y), y.shape[1]), generator, padded).to(y)
    grads = torch.autograd.grad((y * signs).sum(), [z for _, z in calls], allow_unused=True)
    for (layer, z), grad in zip(calls, grads, strict=True):
        layer.add_gradients(z, grad)
