"""Run only what follows a layer: the network as a graph, started from values that are already known."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import fuse_conv_bn_eval

from lrp.errors import InputError


class Downstream:
    """A frozen copy of a network in eval mode that can be run from the output of any of its layers.

    Batch norms that follow a convolution directly are folded into it: the function stays the same up to rounding and less
    memory is moved. ``scale[name]`` is what the fold multiplied each row of that layer's matrix by (M,), where it did.
    Raises InputError for a network that torch.fx cannot trace.
    """

    def __init__(self, model: nn.Module) -> None:
        try:
            self.module = fx.symbolic_trace(copy.deepcopy(model).eval().requires_grad_(False))
        except Exception as error:  # whatever the forward raised when it met a proxy
            raise InputError(f"estimator=exact: torch.fx cannot trace this network ({str(error).splitlines()[0]})") from error
        self.scale: dict[str, Tensor] = {}
        self._fold()
        self._out_of_place()
        self.nodes = list(self.module.graph.nodes)
        self.modules = dict(self.module.named_modules())
        self._after: dict[fx.Node, list[fx.Node]] = {}
        self.layer_nodes: dict[str, fx.Node | None] = {}
        for node in self.nodes:
            if node.op == "call_module":
                if node.target in self.layer_nodes:
                    self.layer_nodes[node.target] = None  # called more than once
                else:
                    self.layer_nodes[node.target] = node

    def _fold(self) -> None:
        graph, modules = self.module.graph, dict(self.module.named_modules())
        for node in list(graph.nodes):
            before = node.args[0] if node.op == "call_module" and node.args else None
            if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
                continue
            norm, conv = modules[node.target], modules[before.target]
            calls = [n for n in graph.nodes if n.op == "call_module" and n.target == before.target]
            if type(norm) is nn.BatchNorm2d and type(conv) is nn.Conv2d and len(calls) == 1 and norm.track_running_stats:
                weight = norm.weight if norm.affine else torch.ones_like(norm.running_mean)
                self.scale[before.target] = weight * torch.rsqrt(norm.running_var + norm.eps)
                self.module.set_submodule(before.target, fuse_conv_bn_eval(conv, norm))
                node.replace_all_uses_with(before)
                graph.erase_node(node)
        self.module.recompile()

    def _out_of_place(self) -> None:
        """The known values are used again and again: nothing may write into them."""
        for module in self.module.modules():
            if getattr(module, "inplace", False):
                module.inplace = False
        for node in self.module.graph.nodes:
            if node.kwargs.get("inplace"):
                node.kwargs = {**node.kwargs, "inplace": False}
            if node.op == "call_function" and node.target in (operator.iadd, operator.imul):
                node.target = operator.add if node.target is operator.iadd else operator.mul
            elif node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):
                node.target = node.target.rstrip("_")

    def layer_node(self, name: str) -> fx.Node:
        node = self.layer_nodes.get(name)
        if node is None:
            raise InputError(f"layer {name}: it runs more than once or not at all in a forward pass, so estimator=exact cannot score it")
        return node

    def record(self, x: Tensor) -> dict[fx.Node, Any]:
        """The value of every node for one batch."""
        known: dict[fx.Node, Any] = {}
        for node in self.nodes:
            known[node] = x if node.op == "placeholder" else self._run(node, known)
        return known

    def after(self, layer: fx.Node) -> list[fx.Node]:
        """The nodes that depend on a layer, in order."""
        if layer in self._after:
            return self._after[layer]
        reached = {layer}
        for node in self.nodes:
            if any(source in reached for source in node.all_input_nodes):
                reached.add(node)
        self._after[layer] = [node for node in self.nodes if node in reached and node is not layer]
        return self._after[layer]

    def run_from(self, layer: fx.Node, value: Tensor, known: dict[fx.Node, Any], copies: int) -> Tensor:
        """The network's output (copies*B, K) when ``layer`` gives ``value`` (copies*B, ...) and all that does not depend
        on it is as ``known`` for B images."""
        batch = len(value) // copies
        fresh: dict[fx.Node, Any] = {layer: value}
        path = self.after(layer)
        last_use = {source: node for node in path for source in node.all_input_nodes}
        for node in path:
            for source in node.all_input_nodes:
                if source not in fresh:
                    held = known[source]
                    across = isinstance(held, Tensor) and held.dim() > 0 and len(held) == batch and source.op != "get_attr"
                    fresh[source] = held.repeat(copies, *[1] * (held.dim() - 1)) if across else held
            fresh[node] = self._run(node, fresh)
            for source in node.all_input_nodes:
                if last_use[source] is node:
                    fresh.pop(source, None)
        return fresh[path[-1]] if path else value

    def _run(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        args = fx.node.map_arg(node.args, values.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
        if node.op == "call_module":
            return self.modules[node.target](*args, **kwargs)
        if node.op == "call_function":
            return node.target(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        if node.op == "get_attr":
            return operator.attrgetter(node.target)(self.module)
        return args[0]  # output
