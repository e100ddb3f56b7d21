"""What blocks are called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

HIDDEN = "hidden_states"  # what transformers call the first argument of a block where they name it


class Call(NamedTuple):
    """What a block is called with besides what it reads of the block before.

    Attributes:
        args: By position, behind that.
        kwargs: By name.
        named: Whether that is given by its name too.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    named: bool

    @property
    def flat(self) -> tuple[list[Any], TreeSpec]:
        """What the arguments hold, in order, and how."""
        return tree_flatten((self.args, self.kwargs))

    def with_leaves(self, values: Mapping[int, Any]) -> Call:
        """The same with other values in place of what has these numbers."""
        leaves, spec = self.flat
        args, kwargs = tree_unflatten([values.get(i, leaf) for i, leaf in enumerate(leaves)], spec)
        return Call(args, kwargs, self.named)


def changed(leaf: Any) -> Any:
    """Other numbers in place of a tensor's."""
    if not isinstance(leaf, Tensor):
        return leaf
    return (
        torch.zeros_like(leaf)
        if not leaf.is_floating_point()
        else leaf + torch.rand(leaf.shape, generator=torch.Generator().manual_seed(0)).to(leaf)
    )


def fixed(given: Any, other: Any) -> Any:
    """What a block gives besides, which is kept where it is the same for other examples, and else is not a number."""

    def once(leaf: Any, there: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or torch.equal(leaf, there):
            return leaf
        return torch.full_like(leaf, torch.nan)

    return tree_map(once, given, other)


def equal(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors hold the same numbers."""
    return x.dtype == y.dtype and torch.equal(x, y)  # of what is not a number: no


def same(a: Any, b: Any) -> bool:
    """Whether arguments hold the same; what cannot be compared is not the same."""
    (left, one), (right, other) = tree_flatten(a), tree_flatten(b)
    return one == other and not any(unlike(x, y) for x, y in zip(left, right, strict=True))


def unlike(x: Any, y: Any) -> str:
    """Where two of what arguments hold are not the same, a sentence that says so; else nothing."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return "" if equal(x, y) else "what it is called with besides depends on the examples"
    try:
        if x is y or bool(x == y):
            return ""
    except Exception:  # whatever the comparison of two objects raises
        pass
    if isinstance(x, Tensor | int | float | str | None):
        return "what it is called with besides depends on the number of examples"
    return f"it is called with a {type(x).__name__}, which cannot be compared from one batch to the next; give tensors and plain values"
