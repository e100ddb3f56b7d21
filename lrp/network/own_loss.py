"""Gradients of losses that need no labels, those of a network's own predictions. Tokens that are padding do not count."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.batches import Batches, Inputs, call, counted, examples, tensors
from lrp.errors import InputError
from lrp.layer.build import kind_of
from lrp.layer.duplicate import measured_copy
from lrp.network.arithmetic import plain_arithmetic

AT_ONCE = 64  # examples that run at a time
LABELS = ("own", "next", "given")
Pick = Callable[[Any], Tensor]


def as_rows(y: Tensor) -> Tensor:
    """Logits as (rows, K): the classes are the last dimension of (B, K) and (B, T, K), and the second of (B, K, H, W, ...).

    Raises:
        InputError: For a network with one output, whose softmax is constant.
    """
    rows = y.reshape(-1, y.shape[-1]) if y.dim() < 4 else y.movedim(1, -1).reshape(-1, y.shape[1])
    if rows.shape[1] < 2:
        raise InputError("the network has one output, whose softmax is constant, so that it has no loss that needs no labels")
    return rows


def mean_gradients(model: nn.Module, names: Sequence[str], batches: Batches, pick: Pick, labels: str = "own") -> dict[str, Tensor]:
    """dL/dW of each layer named, (M, N) float64 on the CPU, L the mean cross entropy over all rows.

    ``labels``: "own", the likeliest class of the network itself; "next", of each token the one that comes next in the input; "given", those
    of the batches.

    Raises:
        InputError: Where the labels that are asked for do not fit the network or are not there, and for networks with one output.
    """
    twin, weights = _with_weights(model, names)
    total = [torch.zeros(weight.shape, dtype=torch.float64) for weight in weights]
    rows = start = 0
    for batch in batches.split(AT_ONCE):
        stop = start + examples(batch)
        with _differentiating(batch):
            logits, wanted = _labelled(pick(call(twin, batch)), batch, batches.labels, slice(start, stop), labels)
            found = torch.autograd.grad(_checked(F.cross_entropy(logits, wanted, reduction="sum")), weights, allow_unused=True)
        for held, grad in zip(total, found, strict=True):
            if grad is not None:
                held += grad.double().cpu()
        rows, start = rows + len(wanted), stop
    return {name: _matrix(twin, name, grad / max(rows, 1)) for name, grad in zip(names, total, strict=True)}


def drawn_gradients(model: nn.Module, names: Sequence[str], batches: Batches, pick: Pick, seed: int = 0) -> Iterator[dict[str, Tensor]]:
    """Of each example the gradient of its mean cross entropy with respect to each layer matrix, (M, N) in the network's precision.

    The label of each row is drawn from the network's own softmax, so that E[g g^T] is the Fisher information.

    Raises:
        InputError: For networks with one output.
    """
    twin, weights = _with_weights(model, names)
    generator = torch.Generator().manual_seed(seed)
    for batch in batches.split(1):
        with _differentiating(batch):
            logits = _counting(as_rows(pick(call(twin, batch))), counted(batch))
            drawn = logits.detach().softmax(1).cpu().double().multinomial(1, generator=generator)[:, 0]
            loss = F.cross_entropy(logits, drawn.to(logits.device)) if len(logits) else logits.sum()
            found = torch.autograd.grad(_checked(loss), weights, allow_unused=True)
        filled = (torch.zeros_like(w) if grad is None else grad for grad, w in zip(found, weights, strict=True))
        yield {name: _matrix(twin, name, grad) for name, grad in zip(names, filled, strict=True)}


def _with_weights(model: nn.Module, names: Sequence[str]) -> tuple[nn.Module, list[Tensor]]:
    """A copy of the network in which these layers' weights can be differentiated by, and the weights."""
    with torch.inference_mode(False):
        twin = measured_copy(model)
        layers: list[Any] = [twin.get_submodule(name) for name in names]
        return twin, [layer.weight.requires_grad_() for layer in layers]


@contextlib.contextmanager
def _differentiating(batch: Inputs) -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad(), plain_arithmetic(tensors(batch)[0].device):
        yield


def _checked(loss: Tensor) -> Tensor:
    if not bool(torch.isfinite(loss)) or not loss.requires_grad:
        raise InputError("the loss on the calibration examples is not finite or carries no gradient, so nothing can be found from it")
    return loss


def _labelled(y: Tensor, batch: Inputs, given: Tensor | None, at: slice, labels: str) -> tuple[Tensor, Tensor]:
    """The logits (rows, K) of what has a label and counts, and the labels (rows,).

    Raises:
        InputError: For labels that do not fit or are not there.
    """
    mask = counted(batch)
    if labels == "own":
        rows = _counting(as_rows(y), mask)
        return rows, rows.detach().argmax(1)
    if labels == "next":
        tokens = tensors(batch)[0]
        if y.dim() != 3 or tokens.is_floating_point() or tokens.shape != y.shape[:2] or tokens.shape[1] < 2:
            raise InputError(
                "scorer.labels", labels, "it needs a network that reads tokens (B, T) and gives logits (B, T, K); own needs none"
            )
        mask = None if mask is None else mask[:, :-1] & mask[:, 1:]
        rows, wanted = (_counting(each, mask) for each in (as_rows(y[:, :-1]), tokens[:, 1:].reshape(-1)))
    else:
        if given is None:
            raise InputError("scorer.labels", labels, "the calibration holds no labels; give batches of (inputs, labels), or choose own")
        rows, wanted = _counting(as_rows(y), mask), _counting(given[at].reshape(-1), mask)
    inside = not wanted.is_floating_point() and len(wanted) == len(rows) and bool(((wanted >= 0) & (wanted < rows.shape[1])).all())
    if not inside:
        raise InputError(
            "scorer.labels", labels, f"each of the {len(rows)} rows needs a label that is an integer in [0, {rows.shape[1] - 1}]"
        )
    return rows, wanted.to(rows.device).long()


def _counting(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Those of the rows (rows, ...) whose tokens count, where there is one for each token of the mask (B, L)."""
    return rows if mask is None or mask.numel() != len(rows) else rows[mask.flatten()]


def _matrix(model: nn.Module, name: str, grad: Tensor) -> Tensor:
    """A gradient of a layer's weight in the shape of its matrix (M, N)."""
    layer = model.get_submodule(name)
    return kind_of(layer).as_matrix(layer, grad)
