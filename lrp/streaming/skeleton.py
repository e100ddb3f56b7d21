"""A network without weights, whose blocks are given theirs one at a time."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from lrp.batches import Inputs, call, examples
from lrp.errors import InputError
from lrp.streaming.weights import Weights, assign, check_names, empty, empty_own, fill

HIDDEN = "hidden_states"  # what transformers call the first argument of a block where they name it


class _Reached(Exception):
    """A block has been called."""


class Cut(nn.Module):
    """One block, as a network of its own: its outputs are how the network's outputs react to a change of what the block gives.

    ``forward(x, g)``: x (B, ...) is what the block reads, g (B, J, ...) are the gradients of J combinations of the network's outputs with
    respect to what it gives; (B, J) are their products, so that derivatives by the block's layers are those of the whole network.
    """

    def __init__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], named: bool) -> None:
        super().__init__()
        self.block, self._args, self._kwargs, self._named = block, args, kwargs, named

    def given(self, x: Tensor) -> Tensor:
        """What the block gives for ``x``."""
        found = self.block(**{HIDDEN: x}, **self._kwargs) if self._named else self.block(x, *self._args, **self._kwargs)
        return found[0] if isinstance(found, tuple) else found

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """(B, J)."""
        return (self.given(x)[:, None] * g).flatten(2).sum(2)


class Skeleton:
    """A network whose parameters hold nothing, its blocks in the order in which they run, and where their weights are.

    Attributes:
        blocks: The names of the blocks. Each reads what the one before it gives, and nothing else that depends on the examples.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[str], weights: Weights) -> None:
        self.model, self.blocks, self.weights = model.eval(), [*blocks], weights
        self.names = check_names(model, weights)
        self._held = {name: model.get_submodule(name) for name in blocks}
        self._more: tuple[Any, ...] | None = None  # what a block gives besides, where it gives a tuple
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any], bool]] = []
        config: Any = getattr(model, "config", None)
        if getattr(config, "use_cache", False):
            config.use_cache = False  # a cache goes from block to block

    @contextlib.contextmanager
    def ends(self) -> Iterator[None]:
        """What runs before and behind the blocks has its weights meanwhile."""
        inside = tuple(f"{name}." for name in self.blocks)
        for name in self.rest:
            place, _, own = name.rpartition(".")
            assign(self.model.get_submodule(place), own, self.weights.read(self.names[name]))
        try:
            yield
        finally:
            for name, module in self.model.named_modules():
                if not f"{name}.".startswith(inside):
                    empty_own(module)

    @property
    def rest(self) -> list[str]:
        """The names of the parameters and buffers outside of the blocks."""
        inside = tuple(f"{name}." for name in self.blocks)
        return [name for name in self.names if not name.startswith(inside)]

    @contextlib.contextmanager
    def block(self, number: int) -> Iterator[Cut]:
        """One block with its weights."""
        name = self.blocks[number]
        block = self._held[name]
        fill(block, f"{name}.", self.weights, self.names)
        try:
            yield Cut(block, *self._calls[number])
        finally:
            empty(block)

    @torch.no_grad()
    def look(self, example: Inputs) -> None:
        """See on one example how the blocks are called.

        Raises:
            InputError: For blocks that do not run one after the other, once each, or that read more than the first argument.
        """
        first = self._held[self.blocks[0]]
        given: list[Any] = []

        def stop(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            given.append(result)
            raise _Reached

        def too_early(*_: Any, **__: Any) -> None:
            raise _Reached

        fill(first, f"{self.blocks[0]}.", self.weights, self.names)
        handle = first.register_forward_hook(stop, with_kwargs=True)
        try:
            with self._forwards(lambda _: too_early, self.blocks[1:]), contextlib.suppress(_Reached):
                call(self.model, example)
        finally:
            handle.remove()
            empty(first)
        if not given:
            raise InputError("blocks", self.blocks[0], "it is not the first to run; give each block once, as they run")
        result = given[0]
        if isinstance(result, tuple):
            self._more, result = result[1:], result[0]
        if not isinstance(result, Tensor):
            raise InputError(
                "blocks", self.blocks[0], f"it gives a {type(result).__name__}, and a block has to give a tensor, or a tuple of it and more"
            )
        seen = self._recorded(example)[1]
        if [name for name, *_ in seen] != self.blocks:
            order = ", ".join([name for name, *_ in seen][:4])
            raise InputError("blocks", ", ".join(self.blocks[:4]), f"they run as {order} ...; list each as it runs, once")
        self._calls = [(args, kwargs, named) for _, args, kwargs, named in seen]

    @torch.no_grad()
    def before(self, batch: Inputs) -> Tensor:
        """What the first block reads of a batch.

        Raises:
            InputError: Where the blocks are told more of the batch than that, such as which tokens count.
        """
        x, seen = self._recorded(batch)
        for (name, args, kwargs, _), (known_args, known_kwargs, _) in zip(seen, self._calls, strict=True):
            if not _same((args, kwargs), (known_args, known_kwargs)):
                raise InputError(
                    "blocks", name, "what it is called with besides differs between examples; give examples of one length, without padding"
                )
        return x

    def behind(self, batch: Inputs, x: Tensor) -> Any:
        """What the network gives for a batch of which the last block gives ``x``."""

        def passed(*_: Any, **__: Any) -> Any:
            return x if self._more is None else (x, *self._more)

        with self._forwards(lambda name: passed, self.blocks):
            return call(self.model, batch)

    def _recorded(self, batch: Inputs) -> tuple[Tensor, list[tuple[str, tuple[Any, ...], dict[str, Any], bool]]]:
        """What the first block reads of a batch; and of each block in their order how it is called besides."""
        seen: list[tuple[str, tuple[Any, ...], dict[str, Any], bool]] = []
        first: list[Tensor] = []

        def recorder(name: str) -> Callable[..., Any]:
            def record(*args: Any, **kwargs: Any) -> Any:
                named = not args
                x = kwargs.pop(HIDDEN, None) if named else args[0]
                if not isinstance(x, Tensor):
                    raise InputError("blocks", name, f"its first argument is no tensor, nor is one named {HIDDEN}")
                first.append(x)
                count = examples(batch)
                seen.append((name, _of_one(args[1:], count), _of_one(kwargs, count), named))
                return x if self._more is None else (x, *self._more)

            return record

        with self._forwards(recorder, self.blocks):
            call(self.model, batch)
        return first[0], seen

    @contextlib.contextmanager
    def _forwards(self, make: Callable[[str], Callable[..., Any]], names: Sequence[str]) -> Iterator[None]:
        """These blocks do something else than what they do."""
        for name in names:
            self._held[name].forward = make(name)
        try:
            yield
        finally:
            for name in names:
                del self._held[name].forward


def _of_one(given: Any, count: int) -> Any:
    """What a block is called with besides, for any number of examples: what runs over them and is the same for all is kept once."""

    def once(leaf: Any) -> Any:
        over = isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == count
        return leaf[:1] if over and bool((leaf == leaf[:1]).all()) else leaf

    return tree_map(once, given)


def _same(a: Any, b: Any) -> bool:
    (left, one), (right, other) = tree_flatten(a), tree_flatten(b)
    if one != other:
        return False
    pairs = zip(left, right, strict=True)
    return all(torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x is y or x == y for x, y in pairs)


def names_of_blocks(model: nn.Module, blocks: Sequence[str] | str) -> list[str]:
    """The names of the blocks, where those of a module that holds them were meant.

    Raises:
        InputError: For names that the network does not have.
    """
    known = dict(model.named_modules())
    given = [blocks] if isinstance(blocks, str) else [*blocks]
    if missing := [name for name in given if name not in known]:
        holders = [name for name, module in known.items() if isinstance(module, nn.ModuleList | nn.Sequential)]
        raise InputError(
            "blocks", missing[0], f"the network has no such module; modules that hold others are {', '.join(holders[:6]) or 'none'}"
        )
    if isinstance(blocks, str):
        return [f"{blocks}.{name}" for name, _ in known[blocks].named_children()]
    return given


def fits(name: str, pattern: str) -> bool:
    """Whether a layer is named by a pattern, or is in a module that is."""
    return fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}.")


def check_excluded(skeleton: Skeleton, exclude: Sequence[str]) -> None:
    """That each pattern names something in the blocks.

    Raises:
        InputError: For one that does not.
    """
    inside = tuple(f"{name}." for name in skeleton.blocks)
    known = [name for name, _ in skeleton.model.named_modules() if f"{name}.".startswith(inside)]
    for pattern in exclude:
        if not any(fits(name, pattern) for name in known):
            raise InputError("exclude", pattern, "fits nothing in the blocks")
