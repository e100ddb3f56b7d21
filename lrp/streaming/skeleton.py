"""A network without weights, whose blocks are given theirs one at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Batches, Inputs, examples, join
from lrp.errors import InputError
from lrp.network.arithmetic import run_model
from lrp.standin.replace import with_stand_ins
from lrp.streaming.calls import HIDDEN, Call, changed, fixed, same, unlike
from lrp.streaming.cut import Cut, ToldCut
from lrp.streaming.naming import within
from lrp.streaming.told import Told, shared
from lrp.streaming.weights import Weights, check_names, empty, empty_own, fill, fill_rest


class _Reached(BaseException):  # which nobody takes for an error
    """A block has been called."""


class Skeleton:
    """A network whose parameters hold nothing, its blocks in the order in which they run, and where their weights are.

    Attributes:
        blocks: The names of the blocks. Each reads what the one before it gives.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[str], weights: Weights) -> None:
        self.model, self.blocks, self.weights = model.eval(), [*blocks], weights
        self.names = check_names(model, weights)
        self._held = {name: model.get_submodule(name) for name in blocks}
        self._more: tuple[Any, ...] | None = None  # what a block gives besides, where it gives a tuple
        self._told = Told([], [], (1, 2), [])  # nothing, until ``look``
        self._witness: Inputs = None  # an example that runs beside each batch
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
        call, over, names = self._told.calls[number], self._told.over[number], self._told.names[number]
        there = with_stand_ins(block)
        own = ToldCut(there, call, over, [*shared(names).values()]) if names else Cut(there, call, over)
        try:
            yield own
        finally:
            empty(own)
            empty(block)

    def told(self, number: int) -> list[str]:
        """What one block reads of each example besides what the block before gives: names that several blocks may share."""
        return [*shared(self._told.names[number])]

    @torch.no_grad()
    def look(self, given: Batches, size: int) -> None:
        """See on the examples, ``size`` at once, how the blocks are called.

        Where tokens are padding, an example that has some runs beside each batch: networks give no mask where nothing is.

        Raises:
            InputError: For blocks that do not run one after the other, once each, or that read more of each other than the first argument,
                or what belongs to no single example and is not the same for all.
        """
        self._run_first(given.example)
        counted = given.counted()
        if counted is not None and not bool(counted.all()):
            self._witness = next(given.drop(most).split(1)) if (most := int((~counted).sum(1).argmax())) else given.example
        two = given.take(2).whole() if len(given) > 1 else join([given.example, given.example])
        few, more = self._beside(given.example), self._beside(two)
        batches = ((self._begun(batch)[1], examples(batch)) for batch in given.split(size))
        self._told = Told(self._order(few), self._recorded(more)[1], (examples(few), examples(more)), batches)

    def _run_first(self, example: Inputs) -> None:
        """See what the first block gives for an example.

        Raises:
            InputError: Where another runs before it, and where it gives no tensor.
        """
        first, name = self.module(0), self.blocks[0]
        given: list[Any] = []

        def stop(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            other = module.forward(*map(changed, args[:1]), *args[1:], **kwargs | {HIDDEN: changed(kwargs[HIDDEN])} if not args else kwargs)
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
            self._more, result = tuple(map(fixed, result[1:], other[1:])), result[0]
        if not isinstance(result, Tensor):
            raise InputError(
                "blocks", name, f"it gives a {type(result).__name__}, and a block has to give a tensor, or a tuple of it and more"
            )
        if result.is_floating_point() and bool(result.isnan().any()):
            raise InputError("blocks", name, "what it gives for the first example is not a number (NaN)")
        self._like = result

    def _order(self, example: Inputs) -> list[tuple[str, Call]]:
        """How each block is called besides.

        Raises:
            InputError: As ``look``.
        """
        (_, seen), (_, again) = (self._recorded(example, torch.Generator().manual_seed(seed)) for seed in (0, 1))
        if [name for name, _ in seen] != self.blocks:
            order = ", ".join([name for name, _ in seen][:4])
            raise InputError("blocks", ", ".join(self.blocks[:4]), f"they run as {order} ...; list each as it runs, once")
        for (name, called), (_, other) in zip(seen, again, strict=True):
            if same(called, other):
                continue
            wrong = "it reads more of what blocks before it give than the first tensor of the one before"
            for x, y in zip(called.flat[0], other.flat[0]):
                if not isinstance(x, Tensor) and (reason := unlike(x, y)):
                    wrong = reason
            raise InputError("blocks", name, wrong)
        return seen

    @torch.no_grad()
    def before(self, batch: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """What the first block reads of a batch, and by their names what blocks read of it besides, each (B, ...)."""
        x, seen = self._begun(batch)
        return x, self._told.values(seen, examples(batch))

    def _begun(self, batch: Inputs) -> tuple[Tensor, list[tuple[str, Call]]]:
        """What the first block reads of a batch, and how each block is called besides; there the witness is the last example."""
        x, seen = self._recorded(self._beside(batch))
        return x[: examples(batch)], seen

    def _beside(self, batch: Inputs) -> Inputs:
        return batch if self._witness is None else join([batch, self._witness])

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

    def _recorded(self, batch: Inputs, random: torch.Generator | None = None) -> tuple[Tensor, list[tuple[str, Call]]]:
        """What the first block reads of a batch; and of each block in their order how it is called besides. ``random``: blocks give random
        numbers, and the network runs to its end, so that a block is seen that runs again.

        Raises:
            InputError: For a block that does not read what the one before it gives.
        """
        seen: list[tuple[str, Call]] = []
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
                if first and len(seen) < len(self.blocks) and not same(x, given):
                    raise InputError(
                        "blocks", name, f"it does not read what {seen[-1][0]} gives, but what something between them makes of it"
                    )
                first.append(x)
                seen.append((name, Call(args[1:], kwargs, named)))
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
