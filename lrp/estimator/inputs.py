"""The change that removing a component of a layer's input side makes, to first order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Batches, call, counted, tensors
from lrp.group import ALONE, Group
from lrp.layer.build import kind_of
from lrp.network.arithmetic import layer_input, plain_arithmetic, random_signs, read_output
from lrp.network.frozen import FrozenNetwork

AT_ONCE = 32  # images
Components = Sequence[tuple[Tensor, Tensor]]


def input_perturbations(
    network: FrozenNetwork,
    components: Mapping[str, Components],
    images: Batches,
    read: Callable[[Any], Tensor],
    group: Group = ALONE,
) -> dict[str, list[Tensor]]:
    """E ||y - y_b||^2 to first order, y_b the network's output without one component of a layer's input unfolding: (R,) float64 on
    the CPU for each group of the layers that ``components`` names; a layer through which no gradient flows on any image is left out.

    ``components``: of each group the directions U (C, R) of its C inputs, and what each holds, V (R, M, k): the group's weight (M, C k)
    is sum_j U_j V_j. Of each image one random combination of the outputs (signs +-1) is differentiated, so that these are unbiased
    estimates. The processes of a ``group`` share the images.
    """
    found = {name: [torch.zeros(len(V), dtype=torch.float64) for _, V in parts] for name, parts in components.items()}
    reached: set[str] = set()
    generator = torch.Generator().manual_seed(1)
    own = images.shared(group, AT_ONCE)
    for start, batch in zip(range(0, len(own), AT_ONCE), own.split(AT_ONCE), strict=True):
        with torch.inference_mode(False), torch.enable_grad(), plain_arithmetic(tensors(batch)[0].device):
            held = _run(network, list(components), batch, read, generator, 0 if start else own.start // AT_ONCE)
            for name, x, g in held:
                if bool(g.any()):
                    reached.add(name)
                if name in network.scale:  # a batch norm was folded into the layer
                    g = g * network.scale[name].to(g).view(-1, *[1] * (g.dim() - 2))
                _add(found[name], network.modules[name], components[name], x, g)
    reached = set().union(*group.all(reached))
    totals = iter(group.total([total for held in found.values() for total in held]))
    means = {name: [total / len(images) for _, total in zip(held, totals) if total is not None] for name, held in found.items()}
    return {name: held for name, held in means.items() if name in reached}


def _run(
    network: FrozenNetwork, names: Sequence[str], batch: Any, read: Any, generator: torch.Generator, skipped: int
) -> list[tuple[str, Tensor, Tensor]]:
    """What each layer reads, and the gradients of its outputs where they have any; so many batches before this one are looked at by others,
    and what would have been drawn for them is skipped."""
    calls: list[tuple[str, Tensor, Tensor]] = []

    def watch(name: str, args: Any, kwargs: Any, z: Tensor) -> Tensor:
        calls.append((name, layer_input(args, kwargs).detach(), z if z.requires_grad else z.requires_grad_()))
        return z.clone()  # what follows may write into it

    handles = [
        network.modules[name].register_forward_hook(lambda _, args, kwargs, z, name=name: watch(name, args, kwargs, z), with_kwargs=True)
        for name in names
        if name in network.modules
    ]
    try:
        y = read_output(read, call(network.module, network.as_input(batch)), batch)
    finally:
        for handle in handles:
            handle.remove()
    if not y.requires_grad:
        return []
    padded = counted(batch) is not None
    for _ in range(skipped):
        random_signs((AT_ONCE, y.shape[1]), generator, padded)
    signs = random_signs((len(y), y.shape[1]), generator, padded).to(y)
    grads = torch.autograd.grad((y * signs).sum(), [z for _, _, z in calls], allow_unused=True)
    return [(name, x, grad) for (name, x, _), grad in zip(calls, grads, strict=True) if grad is not None]


@torch.no_grad()
def _add(totals: list[Tensor], module: nn.Module, components: Components, x: Tensor, grad: Tensor) -> None:
    """Add the squares of these images."""
    kind = kind_of(module)
    g = kind.features_last(grad)
    g = g.reshape(len(x), -1, g.shape[-1])  # (B, P, M)
    positions = torch.arange(g.shape[1])[None]
    components = [(U.to(x), V.to(x)) for U, V in components]
    for image in range(len(x)):
        columns = kind.columns(module, x[image : image + 1], positions)  # (P, groups, C k)
        parts = g[image].chunk(len(components), dim=1)
        for group, (U, V) in enumerate(components):
            totals[group] += _effects(columns[:, group].unflatten(1, (len(U), -1)), parts[group], U, V).double().square().cpu()


def _effects(x: Tensor, g: Tensor, U: Tensor, V: Tensor) -> Tensor:
    """sum over positions p and entries k of the kernel of (U_j . x_pk) (V_jk . g_p), (R,), by whichever order multiplies less;
    x (P, C, k), g (P, M), U (C, R), V (R, M, k)."""
    (P, C, k), M, R = x.shape, g.shape[1], U.shape[1]
    if P * k * R * (C + M) < M * C * k * (P + R):
        read = torch.einsum("pck,cj->pjk", x, U)
        return (read * torch.einsum("jmk,pm->pjk", V, g)).sum((0, 2))
    D = (g.T @ x.flatten(1)).unflatten(1, (C, k))  # the gradient of the layer's matrix
    return (torch.einsum("mck,cj->jmk", D, U) * V).sum((1, 2))
