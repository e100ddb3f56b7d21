"""A network without weights, whose blocks are given theirs one at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from lrp.batches import Inputs, examples
from lrp.errors import InputError
from lrp.network.arithmetic import run_model
from lrp.standin.replace import with_stand_ins
from lrp.streaming.naming import within
from lrp.streaming.weights import Weights, check_names, empty, empty_own, fill, fill_rest

HIDDEN = "hidden_states"  # what transformers call the first argument of a block where they name it


class _Reached(BaseException):  # which nobody takes for an error
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
        self._like = torch.empty(0)  # what the first block gives for one example, where only its shape and type count

    @contextlib.contextmanager
    def ends(self) -> Iterator[None]:
        """What runs before and behind the blocks has its weights meanwhile."""
        fill_rest(self.model, {name: self.names[name] for name in self.rest}, self.weights, "weights")
        try:
            yield
        finally:
            for name, module in self.model.named_modules():
                if not within(name, self.blocks):
                    empty_own(module)

    @property
    def rest(self) -> list[str]:
        """The names of the parameters and buffers outside of the blocks."""
        return [name for name in self.names if not within(name, self.blocks)]

    def module(self, number: int) -> nn.Module:
        """One block as the network has it."""
        return self._held[self.blocks[number]]

    def name(self, number: int, layer: str) -> str:
        """What the network calls a layer of a block, which ``Cut`` has as ``layer``."""
        return self.blocks[number] + layer.removeprefix("block")

    @contextlib.contextmanager
    def block(self, number: int) -> Iterator[Cut]:
        """One block with its weights, and with layers in place of what is made of them (``lrp.standin``)."""
        block = self.module(number)
        fill(block, f"{self.blocks[number]}.", self.weights, self.names)
        cut = Cut(with_stand_ins(block), *self._calls[number])
        try:
            yield cut
        finally:
            empty(cut)
            empty(block)

    @torch.no_grad()
    def look(self, example: Inputs) -> None:
        """See on one example how the blocks are called.

        Raises:
            InputError: For blocks that do not run one after the other, once each, or that read more than the first argument.
        """
        first, name = self.module(0), self.blocks[0]
        given: list[Any] = []

        def stop(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            other = module.forward(*map(_other, args[:1]), *args[1:], **kwargs | {HIDDEN: _other(kwargs[HIDDEN])} if not args else kwargs)
            given.extend([result, other])
            raise _Reached

        def too_early(*_: Any, **__: Any) -> None:
            raise _Reached

        fill(first, f"{name}.", self.weights, self.names)
        handle = first.register_forward_hook(stop, with_kwargs=True)
        try:
            with self._forwards(lambda _: too_early, self.blocks[1:]), contextlib.suppress(_Reached):
                run_model(self.model, example, "calibration: ")
        finally:
            handle.remove()
            empty(first)
        if not given:
            raise InputError("blocks", name, "it is not the first to run; give each block once, as they run")
        result, other = given
        if isinstance(result, tuple):
            self._more, result = tuple(map(_fixed, result[1:], other[1:])), result[0]
        if not isinstance(result, Tensor):
            raise InputError(
                "blocks", name, f"it gives a {type(result).__name__}, and a block has to give a tensor, or a tuple of it and more"
            )
        self._like = result
        self._calls = self._order(example)

    def _order(self, example: Inputs) -> list[tuple[tuple[Any, ...], dict[str, Any], bool]]:
        """How each block is called besides.

        Raises:
            InputError: As ``look``.
        """
        (_, seen), (_, again) = (self._recorded(example, torch.Generator().manual_seed(seed)) for seed in (0, 1))
        if [name for name, *_ in seen] != self.blocks:
            order = ", ".join([name for name, *_ in seen][:4])
            raise InputError("blocks", ", ".join(self.blocks[:4]), f"they run as {order} ...; list each as it runs, once")
        for (name, *called), (_, *other) in zip(seen, again, strict=True):
            if not _same(called, other):
                raise InputError("blocks", name, "it reads more of what blocks before it give than the first tensor of the one before")
        return [(args, kwargs, named) for _, args, kwargs, named in seen]

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
        """What the network gives for a batch of which the last block gives ``x``. What the last block gives besides is not a number in it,
        unless it is the same for all examples.

        Raises:
            InputError: Where a block runs again.
        """
        ran: list[str] = []

        def passed(name: str) -> Callable[..., Any]:
            def forward(*_: Any, **__: Any) -> Any:
                ran.append(name)
                return x if self._more is None else (x, *self._more)

            return forward

        with self._forwards(passed, self.blocks):
            result = run_model(self.model, batch, "calibration: ")
        if len(ran) != len(self.blocks):
            raise InputError("blocks", ran[len(self.blocks)], "it runs again behind the last one; list each as it runs, once")
        return result

    def _recorded(
        self, batch: Inputs, random: torch.Generator | None = None
    ) -> tuple[Tensor, list[tuple[str, tuple[Any, ...], dict[str, Any], bool]]]:
        """What the first block reads of a batch; and of each block in their order how it is called besides. ``random``: blocks give random
        numbers, and the network runs to its end, so that a block is seen that runs again.

        Raises:
            InputError: For a block that does not read what the one before it gives.
        """
        seen: list[tuple[str, tuple[Any, ...], dict[str, Any], bool]] = []
        first: list[Tensor] = []
        count = examples(batch)
        like = self._like.expand(count, *self._like.shape[1:])
        given = like if random is None or not like.is_floating_point() else torch.randn(like.shape, generator=random).to(like)

        def recorder(name: str) -> Callable[..., Any]:
            def record(*args: Any, **kwargs: Any) -> Any:
                named = not args
                x = kwargs.pop(HIDDEN, None) if named else args[0]
                if not isinstance(x, Tensor):
                    raise InputError("blocks", name, f"its first argument is no tensor, nor is one named {HIDDEN}")
                if first and len(seen) < len(self.blocks) and not _same(x, given):
                    raise InputError(
                        "blocks", name, f"it does not read what {seen[-1][0]} gives, but what something between them makes of it"
                    )
                first.append(x)
                seen.append((name, _of_one(args[1:], count), _of_one(kwargs, count), named))
                if random is None and len(seen) == len(self.blocks):
                    raise _Reached
                return given if self._more is None else (given, *self._more)

            return record

        with self._forwards(recorder, self.blocks), contextlib.suppress(_Reached):
            try:
                run_model(self.model, batch, "calibration: ")
            except InputError:
                if len(seen) != len(self.blocks):  # else what is behind does not take what the first gives
                    raise
        return first[0], seen

    @contextlib.contextmanager
    def _forwards(self, make: Callable[[str], Callable[..., Any]], names: Sequence[str]) -> Iterator[None]:
        """These blocks do something else than what they do, and none gives a cache to the next."""
        found = {id(config): config for module in self.model.modules() if (config := getattr(module, "config", None)) is not None}
        caching = [config for config in found.values() if getattr(config, "use_cache", None) is True]
        for config in caching:
            config.use_cache = False
        for name in names:
            self._held[name].forward = make(name)
        try:
            yield
        finally:
            for name in names:
                del self._held[name].forward
            for config in caching:
                config.use_cache = True


def _other(leaf: Any) -> Any:
    """Other numbers in place of a tensor's."""
    if not isinstance(leaf, Tensor):
        return leaf
    return (
        torch.zeros_like(leaf)
        if not leaf.is_floating_point()
        else leaf + torch.rand(leaf.shape, generator=torch.Generator().manual_seed(0)).to(leaf)
    )


def _fixed(given: Any, other: Any) -> Any:
    """What a block gives besides, which is kept where it is the same for other examples, and else is not a number."""

    def once(leaf: Any, there: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or torch.equal(leaf, there):
            return leaf
        return torch.full_like(leaf, torch.nan)

    return tree_map(once, given, other)


def _of_one(given: Any, count: int) -> Any:
    """What a block is called with besides, for any number of examples: what runs over them and is the same for all is kept once."""

    def once(leaf: Any) -> Any:
        over = isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == count
        return leaf[:1] if over and bool((leaf == leaf[:1]).all()) else leaf

    return tree_map(once, given)


def _equal(x: Tensor, y: Tensor) -> bool:
    return x.dtype == y.dtype and torch.equal(x, y)  # of what is not a number: no


def _same(a: Any, b: Any) -> bool:
    (left, one), (right, other) = tree_flatten(a), tree_flatten(b)
    if one != other:
        return False
    pairs = zip(left, right, strict=True)
    return all(_equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x is y or x == y for x, y in pairs)
