"""The inputs of one layer after another of a network that changes behind them."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from lrp.batches import Batches, Inputs, call, on_tensors
from lrp.network.arithmetic import layer_input
from lrp.network.trace import default_of, placeholders, run_node, trace

MEMORY = 8 * 2**30  # bytes


class _Reached(Exception):
    """The layer that was waited for has its input."""


class Replay:
    """Runs a network in eval mode on batches of images, layer by layer: ``inputs(name)`` gives what the layer reads of each batch,
    with all changes that were made to the layers before it. Layers have to be asked for in the order of ``order(names)``.

    Where torch.fx can trace the network every layer runs once, and the values between two layers are held for all batches;
    otherwise, and where they would take more than ``memory`` bytes, the network runs from its beginning for each layer.
    """

    def __init__(self, model: nn.Module, batches: Batches, size: int, memory: float = MEMORY) -> None:
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
        self._values: list[dict[fx.Node, Any]] = [{} for _ in range(0, len(batches), size)]
        if self._nodes and self._held() * len(batches) > memory:
            self._nodes = []

    @torch.no_grad()
    def _held(self) -> int:
        """The most bytes that are held for one image between two nodes."""
        values: dict[fx.Node, Any] = {}
        most = 0
        for i, node in enumerate(self._nodes):
            values[node] = self._run(node, values, self.batches.example)
            for source in node.all_input_nodes:
                if self._last_use[source] <= i:
                    values.pop(source, None)
            alive = {
                value.untyped_storage().data_ptr(): value
                for value in values.values()
                if isinstance(value, Tensor) and value.device.type != "meta"
            }
            most = max(most, sum(value.numel() * value.element_size() for value in alive.values()))
        return most

    @torch.no_grad()
    def order(self, names: Sequence[str]) -> list[str]:
        """These layers in the order in which they run; those that do not run are left out."""
        seen: list[str] = []
        handles = [self._modules[name].register_forward_pre_hook(lambda *_, name=name: seen.append(name)) for name in names]
        try:
            call(self.model, on_tensors(Tensor.clone, self.batches.example))
        finally:
            for handle in handles:
                handle.remove()
        calls = [node.target for node in self._nodes if node.op == "call_module" and node.target in names]
        if set(calls) != set(seen):  # some run inside of modules that torch.fx does not look into
            self._nodes = []
        return calls if self._nodes else list(dict.fromkeys(seen))

    @torch.no_grad()
    def inputs(self, name: str) -> Iterator[Tensor]:
        """What the layer reads of each batch."""
        if self._nodes:
            yield from self._step_to(name)
            return
        for batch in self.batches.split(self.size):
            found: list[Tensor] = []

            def stop(module: nn.Module, args: Any, kwargs: Any, found: list[Tensor] = found) -> None:
                found.append(layer_input(args, kwargs))
                raise _Reached

            handle = self._modules[name].register_forward_pre_hook(stop, with_kwargs=True)
            try:
                call(self.model, on_tensors(Tensor.clone, batch))
            except _Reached:
                pass
            finally:
                handle.remove()
            yield found[0]

    def _step_to(self, name: str) -> Iterator[Tensor]:
        stop = next(i for i, node in enumerate(self._nodes) if i >= self._at and node.op == "call_module" and node.target == name)
        start, self._at = self._at, stop
        for values, batch in zip(self._values, self.batches.split(self.size), strict=True):
            for i in range(start, stop):
                node = self._nodes[i]
                values[node] = self._run(node, values, batch)
                for source in node.all_input_nodes:
                    if self._last_use[source] <= i:
                        values.pop(source, None)
            node = self._nodes[stop]
            yield layer_input(tuple(values[a] for a in node.args), {k: values[v] for k, v in node.kwargs.items()})

    def _run(self, node: fx.Node, values: dict[fx.Node, Any], batch: Inputs) -> Any:
        if node.op == "placeholder":
            given = placeholders(self._nodes, batch)
            return on_tensors(Tensor.clone, given[node]) if node in given else default_of(node)
        return run_node(node, values, self._modules, self._attribute)

    def _attribute(self, target: str) -> Any:
        return self._made[target] if target in self._made else operator.attrgetter(target)(self.model)
