"""One pass over the calibration images that gathers every layer's statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lrp.batches import Batches, call, examples, on_tensors, tensors
from lrp.errors import InputError
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.positions import Positions, columns, outputs
from lrp.layer_statistics.sums import Sums
from lrp.network.arithmetic import layer_input, plain_arithmetic
from lrp.network.survey import Candidates

CHUNK = 128  # images that run at once
GRADIENT_IMAGES = 2048  # a multiple of CHUNK: G has few entries, and a backward pass is slow


def layer_calls(model: nn.Module, names: Iterable[str], watch: Callable[[str, nn.Module, Tensor, Tensor], Tensor | None]) -> Any:
    """Hooks that show each call of these layers to ``watch(name, module, input, output)``."""
    handles = []
    for name in names:
        module = model.get_submodule(name)

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Tensor, name: str = name) -> Tensor | None:
            return watch(name, module, layer_input(args, kwargs), output)

        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    return handles


def gather(
    model: nn.Module,
    candidates: Candidates,
    inputs: Batches,
    needs: Iterable[str],
    read: Callable[[Any], Tensor],
    samples: int = 65536,
) -> dict[str, LayerStatistics]:
    """The statistics of every layer to compress on the images ``inputs`` (B, ...). ``needs``: "inputs" (C), "products" (zz),
    "gradients", "outputs". ``read`` turns what the network returns into (B, K).

    The gradients are of the first 2,048 images, of one random combination of the outputs an image (signs +-1), which gives
    E[sum_k g_k g_k^T] without bias. Raises InputError where values are not finite or the first dimension of a layer's values
    does not run over the images.
    """
    inputs, needs, names = Batches.of(inputs), set(needs), list(candidates.matrices)
    if not needs:
        return {}
    with torch.inference_mode(False):
        twin = copy.deepcopy(model).eval().requires_grad_(False)
    for module in twin.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    where = {name: Positions(candidates.positions, len(inputs), samples).of(name) for name in names}
    sums = {name: Sums() for name in names}
    products = {name: Sums() for name in names}
    held: dict[str, list[Tensor]] = {name: [] for name in names}
    squares: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    starts = tqdm(range(0, len(inputs), CHUNK), desc="layer statistics", unit="batch", leave=False, disable=None)
    for start, batch in zip(starts, inputs.split(CHUNK), strict=True):
        calls: dict[str, Tensor] = {}
        with_gradients = "gradients" in needs and start < GRADIENT_IMAGES

        def watch(name: str, module: nn.Module, x: Tensor, z: Tensor) -> Tensor | None:
            if len(x) != examples(batch):
                raise InputError(
                    f"layer {name}: the first dimension of its values does not run over the images, so decomposition=svd and "
                    "compensation=none are needed"
                )
            at = where[name][start : start + CHUNK]
            with torch.no_grad():
                if "inputs" in needs:
                    sums[name].add(columns(module, x.detach(), at))
                sampled = outputs(module, z.detach(), at) if needs & {"products", "outputs"} else None
                if "products" in needs:
                    products[name].add((sampled if module.bias is None else sampled - module.bias)[:, None])
                if "outputs" in needs:
                    held[name].append(sampled.unflatten(0, at.shape))
            if with_gradients:
                calls[name] = z.requires_grad_() if z.is_leaf else z
                return z.clone()  # what follows may write into it
            return None

        handles = layer_calls(twin, names, watch)
        try:
            with torch.inference_mode(False), plain_arithmetic(tensors(batch)[0].device), torch.set_grad_enabled(with_gradients):
                y = read(call(twin, on_tensors(Tensor.clone, batch)))
                if with_gradients:
                    if calls and not y.requires_grad:
                        raise InputError(
                            "the network's output carries no gradient, so decomposition=two_sided and compensation.metric=gradient cannot "
                            "be used; decomposition=activation and compensation.metric=plain can"
                        )
                    signs = (2 * torch.randint(0, 2, y.shape, generator=generator) - 1).to(y)
                    grads = torch.autograd.grad((y * signs).sum(), list(calls.values()), allow_unused=True)
                    for (name, z), grad in zip(calls.items(), grads):
                        linear = isinstance(twin.get_submodule(name), nn.Linear)
                        rows = torch.zeros_like(z) if grad is None else grad
                        rows = rows.reshape(-1, rows.shape[-1]) if linear else rows.movedim(1, -1).reshape(-1, rows.shape[1])
                        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
                        square = (rows.T @ rows).double()
                        squares[name] = square if name not in squares else squares[name] + square
        finally:
            for handle in handles:
                handle.remove()
    result = {}
    for name in names:
        C = sums[name].flush().xx.div_(sums[name].count).cpu() if "inputs" in needs else None
        G = (squares[name] / min(len(inputs), GRADIENT_IMAGES)).cpu() if "gradients" in needs else None
        zz = products[name].flush().xx[0].div_(products[name].count).cpu() if "products" in needs else None
        if any(part is not None and not bool(torch.isfinite(part).all()) for part in (C, G, zz)):
            raise InputError(f"layer {name}: its inputs or gradients on the calibration images are not finite, so it cannot be decomposed")
        z = torch.cat(held[name]) if "outputs" in needs else None
        result[name] = LayerStatistics(candidates.matrices[name].shape[0], C, G, where[name], z, zz)
    return result
