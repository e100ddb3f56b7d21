"""What a network is called with: positional and keyword arguments that hold examples, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

DECODER = "decoder_"  # how transformers call what belongs to a decoder's tokens
MASK = "attention_mask"  # what transformers call it: (B, L), 1 where a token counts and 0 where it is padding


class Arguments(NamedTuple):
    """What a network is called with where it takes both positional and keyword arguments."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Each(list[Tensor]):
    """One tensor for each example, of any sizes: one argument of the network, which gets it as a list."""


# A tensor, a tuple of positional arguments, a mapping of keyword arguments, both (``Arguments``), or one tensor an example (``Each``).
Inputs = Any


def arguments(inputs: Inputs) -> Arguments:
    """A batch as positional and keyword arguments: what is neither a tuple nor a mapping is the one argument."""
    if isinstance(inputs, Arguments):
        return inputs
    if isinstance(inputs, tuple):
        return Arguments(inputs, {})
    return Arguments((), dict(inputs)) if isinstance(inputs, Mapping) else Arguments((inputs,), {})


def call(model: Callable[..., Any], inputs: Inputs) -> Any:
    """What a network returns: a tuple is its positional arguments, a mapping its keyword arguments, anything else the one argument. It gets
    copies of the tensors, into which it may write."""
    given = arguments(on_tensors(Tensor.clone, inputs))
    return model(*given.args, **given.kwargs)


def leaves(inputs: Inputs) -> list[Tensor | Each]:
    """What of a batch runs over the examples, in order."""
    return [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor | Each)]


def tensors(inputs: Inputs) -> list[Tensor]:
    """The tensors of a batch, in order. Their first dimension runs over the examples, but for those that are one example each."""
    return [tensor for leaf in leaves(inputs) for tensor in (leaf if isinstance(leaf, Each) else [leaf])]


def examples(inputs: Inputs) -> int:
    """How many examples a batch holds."""
    return len(leaves(inputs)[0])


def on_tensors(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """The batch with a function applied to each of its tensors, which keeps the examples."""

    def apply(leaf: Any) -> Any:
        if isinstance(leaf, Each):
            return Each(map(function, leaf))
        return function(leaf) if isinstance(leaf, Tensor) else leaf

    return tree_map(apply, inputs)


def cut(inputs: Inputs, start: int, stop: int | None = None) -> Inputs:
    """The examples of a batch from ``start`` to before ``stop``, or to the last."""

    def part(leaf: Any) -> Any:
        if isinstance(leaf, Each):
            return Each(leaf[start:stop])
        return leaf[start:stop] if isinstance(leaf, Tensor) else leaf

    return tree_map(part, inputs)


def join(parts: Sequence[Inputs]) -> Inputs:
    """Batches as one batch."""
    if len(parts) == 1:
        return parts[0]
    spec = tree_flatten(parts[0])[1]
    columns = zip(*(tree_leaves(part) for part in parts), strict=True)
    return spec.unflatten([_join(column) for column in columns])


def _join(column: Sequence[Any]) -> Any:
    if isinstance(column[0], Each):
        return Each(tensor for part in column for tensor in part)
    return torch.cat(list(column)) if isinstance(column[0], Tensor) else column[0]


def counted(inputs: Inputs) -> Tensor | None:
    """Which tokens of a batch count, (B, L) bool: those whose ``attention_mask`` (B, L) is not 0. None of a batch without one."""
    mask = arguments(inputs).kwargs.get(MASK)
    return mask != 0 if isinstance(mask, Tensor) and mask.dim() == 2 else None


def numbers(counted: Tensor) -> Tensor:
    """Of each token of ``counted`` (B, L) bool how many before it count, (B, L) int64: the same wherever an example is padded."""
    return (counted.long().cumsum(1) - 1).clamp(min=0)


def counted_first(z: Tensor, counted: Tensor) -> Tensor:
    """Values (B, L, K) of tokens in the order in which those come that count, (B, L) bool, with the others behind them."""
    if bool((counted[:, 1:] <= counted[:, :-1]).all()):
        return z  # as they are, where examples are padded behind
    order = (~counted).long().sort(dim=1, stable=True).indices
    return z.gather(1, order[..., None].expand_as(z))


def pad(inputs: Inputs, which: set[int], length: int, left: bool, value: int = 0) -> Inputs:
    """A batch whose tensors number ``which`` (in the order of ``leaves``) have this ``value`` behind their second dimension, or before
    it (``left``), so that it is ``length``."""
    flat, spec = tree_flatten(inputs)
    places = [i for i, leaf in enumerate(flat) if isinstance(leaf, Tensor | Each)]
    for number in which:
        leaf = flat[places[number]]
        more = length - leaf.shape[1]
        flat[places[number]] = F.pad(leaf, (*[0, 0] * (leaf.dim() - 2), more * left, more * (not left)), value=value)
    return spec.unflatten(flat)


def odd_layout(tensor: Tensor) -> str | None:
    """What a tensor is called whose numbers do not lie one beside the other: nested, quantised, sparse_coo; None of any other."""
    if tensor.is_nested or tensor.is_quantized:
        return "nested" if tensor.is_nested else "quantised"
    return None if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.").strip("_")


def alike(one: Any, other: Any) -> bool:
    """Whether two results hold the same numbers; sparse and nested tensors, of which torch knows little, are not looked at."""
    a, b = ([leaf for leaf in tree_leaves(each) if isinstance(leaf, Tensor) and not odd_layout(leaf)] for each in (one, other))
    return len(a) == len(b) and all(x.shape == y.shape and x.dtype == y.dtype and _near(x, y) for x, y in zip(a, b))


def _near(x: Tensor, y: Tensor) -> bool:
    if x.is_floating_point() or x.is_complex():
        return torch.allclose(x, y, rtol=1e-3, atol=1e-3 * float(x.abs().nan_to_num().max()) if x.numel() else 0.0, equal_nan=True)
    return True  # an argmax may turn at a tie
