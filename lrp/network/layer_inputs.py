"""The inputs of one layer after another of a network that changes behind them."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from lrp.batches import Batches, Inputs, call, on_tensors
from lrp.network.arithmetic import layer_input, memory_of
from lrp.network.paused import Paused, held_by_one
from lrp.network.trace import default_of, placeholders, run_node, trace


class _Reached(Exception):
    """The layer that was waited for has its input."""


class Replay:
    """Runs a network in eval mode on batches of images, layer by layer: ``inputs(name)`` gives what the layer reads of each batch,
    with all changes that were made to the layers before it. Layers have to be asked for in the order of ``order(names)``.

    What is held are all values between two layers that are still to be read, of as many batches as ``memory`` bytes take: for these every
    layer runs once. For the other batches the network runs from its beginning for each layer, until as much as they hold from there on
    fits too (deep in a network values are smaller). A network that
    torch.fx cannot trace runs in threads that wait at the layers; a batch in which they do not run in the order of the first example is
    run from the beginning as well. To be used in a ``with`` statement, which ends them.
    """

    def __init__(self, model: nn.Module, batches: Batches, size: int, memory: float = float("inf")) -> None:
        self.model, self.batches, self.size = model, batches, size
        self._at = 0
        before = set(vars(model))
        try:
            self._nodes = list(trace(model, batches.example).nodes)
        except Exception:  # whatever the forward raised when it met a proxy
            self._nodes = []
        self._made = {name: vars(model)[name] for name in vars(model).keys() - before}  # constants that the tracer left on the network
        for name in self._made:
            delattr(model, name)
        self._modules = dict(model.named_modules())
        self._last_use = {source: i for i, node in enumerate(self._nodes) for source in node.all_input_nodes}
        self._memory, self._paused = memory, None
        self._runs: dict[int, Any] = {}  # of the batches that wait
        self._waiting = 0
        self._alive = self._most() if self._nodes else []
        self._values: list[dict[fx.Node, Any]] = []  # of the first batches, as of the last layer

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._paused is not None:
            self._paused.close()

    def _admitted(self, each: int) -> int:
        """How many batches may be held where one image takes so many bytes."""
        count = len(range(0, len(self.batches), self.size))
        return int(min(count, self._memory / max(1, each * min(self.size, len(self.batches)))))

    @torch.no_grad()
    def _most(self) -> list[int]:
        """The most bytes that are held for one image from each node on."""
        values: dict[fx.Node, Any] = {}
        held = list[int]()
        for i, node in enumerate(self._nodes):
            values[node] = self._run(node, values, self.batches.example)
            for source in node.all_input_nodes:
                if self._last_use[source] <= i:
                    values.pop(source, None)
            alive = dict(memory_of(value) for value in values.values() if isinstance(value, Tensor) and value.device.type != "meta")
            held.append(sum(alive.values()))
        return [*itertools.accumulate(reversed(held), max)][::-1]

    @torch.no_grad()
    def order(self, names: Sequence[str]) -> list[str]:
        """These layers in the order in which they run; those that do not run are left out."""
        seen: list[str] = []
        handles = [self._modules[name].register_forward_pre_hook(lambda *_, name=name: seen.append(name)) for name in names]
        try:
            call(self.model, self.batches.example)
        finally:
            for handle in handles:
                handle.remove()
        calls = [node.target for node in self._nodes if node.op == "call_module" and node.target in names]
        if set(calls) != set(seen):  # some run inside of modules that torch.fx does not look into
            self._nodes = []
        if self._nodes:
            return calls
        ordered = list(dict.fromkeys(seen))
        self._waiting = self._admitted(held_by_one(self.model, ordered, self.batches.example)) if ordered else 0
        self._paused = Paused(self.model, ordered) if self._waiting else None
        self._last = ordered[-1] if ordered else None
        return ordered

    @torch.no_grad()
    def inputs(self, name: str) -> Iterator[Tensor]:
        """What the layer reads of each batch."""
        stop, start = self._place(name), self._at
        self._at = stop
        admitted = self._admitted(self._alive[max(0, stop - 1)]) if self._nodes else 0
        for at, batch in enumerate(self.batches.split(self.size)):
            if not self._nodes:
                yield self._waited(name, at, batch)
                continue
            held = at < len(self._values)
            values = self._values[at] if held else {}
            found = self._step(values, batch, start if held else 0, stop)
            if not held and at < admitted:
                self._values.append(values)
            del values  # of a batch that is not held it would lie beside the next one's
            yield found
            del found
        if self._paused is not None and name == self._last:
            self._paused.close()

    def _waited(self, name: str, at: int, batch: Inputs) -> Tensor:
        """What the layer reads of a batch of a network that is not traced, or of which nothing is held."""
        if self._paused is None or at >= self._waiting:
            return self._from_the_beginning(name, batch)
        if at not in self._runs:
            self._runs[at] = self._paused.begin(batch)
        found = self._runs[at].input_of(name)
        return self._from_the_beginning(name, batch) if found is None else found

    def _place(self, name: str) -> int:
        """Which node is the layer's next call."""
        calls = (i for i, node in enumerate(self._nodes) if i >= self._at and node.op == "call_module" and node.target == name)
        return next(calls) if self._nodes else 0

    def _from_the_beginning(self, name: str, batch: Inputs) -> Tensor:
        """What the layer reads of a batch of which nothing is held."""
        found: list[Tensor] = []

        def stop(module: nn.Module, args: Any, kwargs: Any) -> None:
            found.append(layer_input(args, kwargs))
            raise _Reached

        handle = self._modules[name].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            call(self.model, batch)
        except _Reached:
            pass
        finally:
            handle.remove()
        return found[0]

    def _step(self, values: dict[fx.Node, Any], batch: Inputs, start: int, stop: int) -> Tensor:
        """What the layer at ``stop`` reads of a batch whose ``values`` are held as of ``start``; they are brought to ``stop``."""
        for i in range(start, stop):
            node = self._nodes[i]
            values[node] = self._run(node, values, batch)
            for source in node.all_input_nodes:
                if self._last_use[source] <= i:
                    values.pop(source, None)
        node = self._nodes[stop]
        args: Any = map_arg(node.args, values.__getitem__)
        kwargs: Any = map_arg(node.kwargs, values.__getitem__)
        return layer_input(args, kwargs)

    def _run(self, node: fx.Node, values: dict[fx.Node, Any], batch: Inputs) -> Any:
        if node.op == "placeholder":
            given = placeholders(self._nodes, batch)
            return on_tensors(Tensor.clone, given[node]) if node in given else default_of(node)
        return run_node(node, values, self._modules, self._attribute)

    def _attribute(self, target: str) -> Any:
        return self._made[target] if target in self._made else operator.attrgetter(target)(self.model)
