"""Moves of features that would be others if some of the features went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx

from lrp.network.joined import Count, varying

SIZES = ("view", "reshape", "expand", "repeat")
AS_ANOTHER = ("view_as", "reshape_as", "expand_as")
DIVIDES = ("chunk", "split", "unbind", "select", "narrow", "roll", "flip", "unflatten")
SECOND = ("chunk", "split", "roll")  # whose dimension is the argument after the next


def why_bound(node: fx.Node, name: str, x: Tensor, moved: Any) -> str | None:
    """Why the channels ``x`` cannot go that a node moves, to ``moved``; None where the move of what is left is the same."""
    if name in SIZES:
        given = _sizes(node)
        many = varying(moved)
        named = len(given) != moved.dim() or any(isinstance(given[d], int) and given[d] != -1 for d in many)
        return f"{name} names its size" if named or len(many) > len(varying(x)) else None
    if name in AS_ANOTHER:
        return f"{name} names its size"
    if name in DIVIDES:
        place = 2 if name in SECOND else 1
        dim = (
            node.args[place]
            if len(node.args) > place
            else node.kwargs.get("dims" if name == "roll" else "dim", None if name == "roll" else 0)
        )
        return None if isinstance(dim, int) and dim % x.dim() not in varying(x) else f"{name} divides it"
    if name == "getitem":
        at: Any = node.args[1]
        places = [each for each in (at if isinstance(at, tuple) else (at,)) if each is not None]
        plain = all(isinstance(each, slice | int) for each in places)
        untouched = {d for d in range(x.dim()) if d >= len(places) or places[d] == slice(None)} if plain else set()
        return None if set(varying(x)) <= untouched else "an index picks from it"
    return None


def counts_bound(node: fx.Node, name: str, moved: Any, ids: Mapping[fx.Node, Any]) -> list[Any]:
    """What else cannot go: channels of sizes that a move is given, other than the one along which the channels lie that it moves; and those
    of the tensor whose shape it takes."""
    given = [each for each in node.all_input_nodes[1:]]
    if name in ("view", "reshape"):
        given = [each for each in given if each not in {_sizes(node)[d] for d in varying(moved) if d < len(_sizes(node))}]
    return [ids[each] for each in given if isinstance(ids[each], Count | tuple) or name in AS_ANOTHER]


def _sizes(node: fx.Node) -> Any:
    """The sizes that a node names."""
    return node.args[1:] if len(node.args) != 2 or not isinstance(node.args[1], tuple | list) else node.args[1]
