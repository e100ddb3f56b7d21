"""Derivatives of the loss with respect to layer matrices."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lrp.batches import Batches, Inputs, call, counted, tensors
from lrp.errors import InputError
from lrp.layer.build import kind_of
from lrp.layer.duplicate import measured_copy
from lrp.network.arithmetic import check_rows, plain_arithmetic, random_signs, read_output
from lrp.network.frozen import FrozenNetwork
from lrp.network.own_loss import as_rows

Read = Callable[[Any], Tensor]
AT_ONCE = 8  # examples whose graph is held: of most layers the first show all there is to see


def loss_gradients(model: nn.Module, names: Sequence[str], inputs: Inputs, labels: Tensor, pick: Read) -> dict[str, Tensor]:
    """dL/dW of each layer named, (M, N) float64 on the CPU; L is the mean cross entropy in eval mode, ``pick`` finds the logits.

    Raises:
        InputError: Where the loss is not finite or does not depend on any of the layers.
    """
    with torch.inference_mode(False), torch.enable_grad():
        layers, loss = _loss(model, names, inputs, labels, pick)
        gradients = torch.autograd.grad(loss, [layer.weight for layer in layers], allow_unused=True)
        return _as_matrices(names, gradients, layers)


def unreached(network: FrozenNetwork, names: Sequence[str], batches: Batches, read: Read) -> list[str]:
    """The layers by whose outputs the network's output has no gradient, or one that is exactly zero, on all of these examples: those
    under no_grad, before a detach, an argmax or a rounding. To first order they change nothing, which says nothing of them.

    Raises:
        InputError: Where the output carries no gradient at all.
    """
    waiting = [name for name in names if name in network.modules]
    generator, reached = torch.Generator().manual_seed(0), set[str]()
    for batch in batches.split(AT_ONCE):
        if not waiting:
            break
        with torch.inference_mode(False), torch.enable_grad(), plain_arithmetic(tensors(batch)[0].device):
            y, outputs = _outputs(network, waiting, batch, read)
            check_rows(y, batch)
            if not y.requires_grad and reached:
                continue  # of the layers that are left none has a graph
            if not y.requires_grad:
                raise InputError("the network's output carries no gradient, so estimator=first_order cannot score it; estimator=exact can")
            signs = random_signs((len(y), y.shape[1]), generator).to(y)
            grads = torch.autograd.grad((y * signs).sum(), [output for _, output in outputs], allow_unused=True)
        reached |= {name for (name, _), grad in zip(outputs, grads, strict=True) if grad is not None and bool(grad.any())}
        waiting = [name for name in waiting if name not in reached]
    return waiting


def _outputs(network: FrozenNetwork, names: Sequence[str], batch: Inputs, read: Read) -> tuple[Tensor, list[tuple[str, Tensor]]]:
    """The network's output with its graph, and the outputs of these layers, which are part of it."""
    held: list[tuple[str, Tensor]] = []

    def watch(name: str, output: Tensor) -> Tensor | None:
        held.append((name, output if output.requires_grad else output.requires_grad_()))
        return output.clone() if network.untraced else None  # what follows may write into it

    handles = [network.modules[name].register_forward_hook(lambda *given, name=name: watch(name, given[-1])) for name in names]
    try:
        return read_output(read, call(network.module, network.as_input(batch)), batch), held
    finally:
        for handle in handles:
            handle.remove()


def hessian_vector_product(
    model: nn.Module, names: Sequence[str], inputs: Inputs, labels: Tensor, vectors: Mapping[str, Tensor], pick: Read
) -> dict[str, Tensor]:
    """H v of the same loss, by a second backward pass; ``vectors``: (M, N) of the layers in which v is not zero.

    Returns (M, N) float64 on the CPU for each layer named.

    Raises:
        InputError: Where the loss is not finite or does not depend on any of the layers.
    """
    with torch.inference_mode(False), torch.enable_grad():
        layers, loss = _loss(model, names, inputs, labels, pick)
        weights = [layer.weight for layer in layers]
        gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        moved = [
            (g * kind_of(layer).as_weight(layer, vectors[name].to(w))).sum()
            for name, layer, g, w in zip(names, layers, gradients, weights, strict=True)
            if g is not None and g.requires_grad and name in vectors
        ]
        if not moved:  # the loss is linear in these weights
            return _as_matrices(names, [None] * len(layers), layers)
        with _second():
            return _as_matrices(names, torch.autograd.grad(torch.stack(moved).sum(), weights, allow_unused=True), layers)


def hessian_traces(
    model: nn.Module, names: Sequence[str], inputs: Inputs, labels: Tensor | None, pick: Read, probes: int, seed: int = 0
) -> dict[str, Tensor]:
    """The trace of the part of the same loss's Hessian that belongs to each row of each layer's matrix, (M,) float64 on the CPU.

    Hutchinson's estimate: the mean over ``probes`` vectors v of signs of the row's own part of v * H v; one product serves all rows
    of all layers. The forward pass and the gradient's graph are made once. Without ``labels`` the likeliest class of each row of the
    network's own output is its label.

    Raises:
        InputError: Where the loss is not finite or does not depend on any of the layers.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.enable_grad():
        layers, loss = _loss(model, names, inputs, labels, pick)
        gradients = torch.autograd.grad(loss, [layer.weight for layer in layers], create_graph=True, allow_unused=True)
        reached = [(name, layer, g) for name, layer, g in zip(names, layers, gradients, strict=True) if g is not None and g.requires_grad]
        total = {name: torch.zeros(kind_of(layer).rows(layer), dtype=torch.float64) for name, layer in zip(names, layers, strict=True)}
        weights = [layer.weight for _, layer, _ in reached]
        for _ in range(probes if reached else 0):
            signs = [random_signs((1, w.numel()), generator).view(w.shape).to(w) for w in weights]
            with _second():
                products = torch.autograd.grad([g for _, _, g in reached], weights, signs, retain_graph=True, allow_unused=True)
            for (name, layer, _), v, Hv in zip(reached, signs, products, strict=True):
                if Hv is not None:
                    total[name] += kind_of(layer).as_matrix(layer, v * Hv.detach()).double().sum(1).cpu()
    return {name: value / probes for name, value in total.items()}


def _loss(model: nn.Module, names: Sequence[str], inputs: Inputs, labels: Tensor | None, pick: Read) -> tuple[list[Any], Tensor]:
    """The layers in a copy of the network, whose weights need a gradient, and the loss with its graph; ``labels``: (B,), or one for each
    place of an example, (B, T).

    Raises:
        InputError: For a loss that is not finite or carries no gradient.
    """
    twin = measured_copy(model)
    layers: list[Any] = [twin.get_submodule(name) for name in names]
    weights: list[Tensor] = [layer.weight.requires_grad_() for layer in layers]
    device = weights[0].device
    with plain_arithmetic(device), _twice_derivable():
        y = pick(call(twin, inputs))
        logits = y.flatten(1) if labels is not None and labels.dim() < 2 else as_rows(y)
        if labels is None:
            labels = logits.detach().argmax(1)
        what = "example" if labels.dim() < 2 else "place of an example"
        labels, mask = labels.flatten(), counted(inputs)
        _check_labels(labels, len(logits), logits.shape[1], what)
        if mask is not None and mask.numel() == len(logits):  # of tokens that are padding nothing is asked
            logits, labels = logits[mask.flatten()], labels[mask.flatten()]
        loss = F.cross_entropy(logits, labels.to(device))
    if not bool(torch.isfinite(loss)) or not loss.requires_grad:
        raise InputError("the loss on the calibration images is not finite or carries no gradient, so nothing can be scored by it")
    return layers, loss


class _Hardsigmoid(TorchFunctionMode):
    """Hardsigmoid by ReLU6, of which torch knows the second derivative."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: D105
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name not in ("hardsigmoid", "hardsigmoid_"):
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        y = F.relu6(x + 3) / 6
        return x.copy_(y) if name.endswith("_") or kwargs.get("inplace", args[1:2] == (True,)) else y


@contextlib.contextmanager
def _twice_derivable() -> Iterator[None]:
    """Within it a network computes with operations that have a second derivative: the faster attentions have none."""
    with sdpa_kernel(SDPBackend.MATH), _Hardsigmoid():
        yield


@contextlib.contextmanager
def _second() -> Iterator[None]:
    """Within it torch's complaint about an operation without a second derivative is a sentence.

    Raises:
        InputError: For such an operation.
        RuntimeError: Whatever else torch raised.
    """
    try:
        yield
    except RuntimeError as error:
        if found := re.search(r"derivative for (\S+) is not implemented", str(error)):
            raise InputError(
                f"torch has no second derivative of {found[1]}, which the network computes with and this method needs"
            ) from error
        raise


def _check_labels(labels: Tensor, rows: int, classes: int, what: str) -> None:
    if labels.is_floating_point() or labels.shape != (rows,) or not bool(((labels >= 0) & (labels < classes)).all()):
        raise InputError(f"calibration: its labels must be {rows} integers in [0, {classes - 1}], one for each {what}")


def _as_matrices(names: Sequence[str], values: Sequence[Tensor | None], layers: Sequence[Any]) -> dict[str, Tensor]:
    filled = (torch.zeros_like(layer.weight) if v is None else v for v, layer in zip(values, layers, strict=True))
    matrices = (kind_of(layer).as_matrix(layer, value.detach()) for layer, value in zip(layers, filled, strict=True))
    return {name: matrix.double().cpu() for name, matrix in zip(names, matrices, strict=True)}
