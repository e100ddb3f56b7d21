"""A network made ready for scoring: a frozen copy and, where torch.fx can trace it, a graph of which any part can be run."""

from __future__ import annotations

import operator
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from lrp.batches import Inputs, call, cut, on_tensors, tensors
from lrp.layer.build import kind_of, ties, transposed
from lrp.layer.duplicate import duplicate, measured_copy
from lrp.matrices import Use
from lrp.network.state import unchanged_state
from lrp.network.trace import default_of, name_of, pairs_to_fold, placeholders, run_node, scale_and_shift, trace

HALF = (torch.float16, torch.bfloat16)
OUT_OF_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


class FrozenNetwork:
    """A copy of a network in eval mode, in fp32 or better, whose parameters need no gradient.

    Where torch.fx can trace the network, ``layer_node`` and ``run_from`` run it from the output of any of its layers, and batch
    norms that follow a convolution directly are folded into it: the function stays the same up to rounding and less memory is
    moved. ``scale[name]`` is what the fold multiplied each row of that layer's matrix by (M,), where it did. A network that
    cannot be traced stays as it is; ``untraced`` then says why.
    """

    def __init__(self, model: nn.Module, inputs: Inputs | None = None, share: bool = False) -> None:
        """``inputs``: a batch of one, which shows how the network is called, and by which the graph is held to what it computes.
        ``share``: as of ``measured_copy``."""
        self.module = measured_copy(model, share)
        self.batch_dims: dict[str, int] = {}  # of layers whose values do not run over the examples first, once it is known
        self.rows_of_one: dict[str, set[int]] = {}  # of layers the positions of one example, in each of their calls
        self.scattered: set[str] = set()  # layers whose rows belong to no example that is known
        self.tied = {name: names for names in ties(self.module) for name in names}
        self._in_single_precision(inputs)
        held = {name: self.module.get_submodule(name) for name in self.tied}
        self.scale: dict[str, Tensor] = {}
        self.untraced: str | None = None
        self.nodes: list[fx.Node] = []
        self._after: dict[fx.Node, list[fx.Node]] = {}
        self._layer_nodes: dict[str, fx.Node | None] = {}
        try:
            traced = fx.GraphModule(self.module, trace(self.module, inputs))
            _check_writes(traced)
            if inputs is not None:
                self._check(traced, inputs)
        except Exception as error:  # whatever the forward raised when it met a proxy
            self.untraced = (str(error).splitlines() or [type(error).__name__])[0]
        else:
            self.module = traced
            self._fold(traced)
            _graph_out_of_place(traced)
            self.nodes = list(traced.graph.nodes)
            traced.graph.owning_module = None  # or each would hold the other until the garbage collector runs
        self.modules: dict[str, Any] = dict(self.module.named_modules())
        self._held = {**held, **self.modules}
        for module in self.modules.values():  # known values are used again and again: nothing may write into them
            if getattr(module, "inplace", False):
                module.inplace = False
        for node in self.nodes:
            if node.op == "call_module":  # None: called more than once
                self._layer_nodes[name_of(node)] = None if name_of(node) in self._layer_nodes else node

    @torch.no_grad()
    def _in_single_precision(self, inputs: Inputs | None) -> None:
        """Turn a network of half precision to fp32, unless it insists on what it has: a forward may cast, layers may differ."""
        held = [*self.module.parameters(), *self.module.buffers()]
        before = [tensor.dtype for tensor in held]
        if not any(dtype in HALF for dtype in before):
            return
        self.module.float()
        try:
            if inputs is not None:
                call(duplicate(self.module), self.as_input(inputs))
        except Exception:  # whatever the forward raises where types meet
            for tensor, dtype in zip(held, before, strict=True):
                tensor.data = tensor.data.to(dtype)

    @torch.no_grad()
    def _check(self, traced: fx.GraphModule, inputs: Inputs) -> None:
        """That the graph computes what the network does, also when it is called again: it holds one branch, and may hold what was read when
        it was traced.

        Raises:
            ValueError: Where it does not.
        """
        inputs = self.as_input(inputs)
        with unchanged_state(self.module):
            calls = [tensors(call(module, inputs)) for module in (self.module, self.module, traced)]
        found = calls.pop()
        same = all(
            len(expected) == len(found)
            and all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in zip(expected, found))
            for expected in calls
        )
        if not same:
            raise ValueError("its graph does not compute what the network does")

    def as_input(self, images: Inputs) -> Inputs:
        """Images in the precision of the parameters; indices stay as they are, and images of a network of several precisions."""
        precisions = {p.dtype for p in self.module.parameters() if p.is_floating_point()} or {torch.float32}
        if len(precisions) > 1:
            return images
        dtype = precisions.pop()
        return on_tensors(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, images)

    def _fold(self, traced: fx.GraphModule) -> None:
        graph, modules = traced.graph, cast(dict[str, Any], dict(traced.named_modules()))
        for before, node in pairs_to_fold(graph, modules):
            norm, layer = modules[name_of(node)], modules[name_of(before)]
            folded = kind_of(layer).folded_for_scoring(layer, norm)
            if folded is not None:
                self.scale[name_of(before)] = scale_and_shift(norm)[0]
                traced.set_submodule(name_of(before), folded)
                node.replace_all_uses_with(before)
                graph.erase_node(node)
        traced.recompile()

    def layer_node(self, name: str) -> fx.Node | None:
        """The one call of a layer in the graph; None where there is no graph, or not just one call in it, or where other layers hold the
        same weight."""
        return None if name in self.tied else self._layer_nodes.get(name)

    def uses(self, name: str) -> list[Use]:
        """A layer, and the other ones that hold the same weight, of those that run."""
        if name not in self.tied:
            return [Use(name)] if name in self.modules else []
        first, names = self._held[name], self.tied[name]
        return [Use(each, transposed=transposed(first, self._held[each])) for each in names if each in self.modules]

    def record(self, inputs: Inputs) -> dict[fx.Node, Any]:
        """The value of every node for one batch; arguments that it does not give have their defaults."""
        known: dict[fx.Node, Any] = {}
        arguments = placeholders(self.nodes, inputs)
        for node in self.nodes:
            if node.op == "placeholder":
                known[node] = arguments.pop(node, None) if node in arguments else default_of(node)
            else:
                known[node] = self._run(node, known)
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
        """What the network returns when ``layer`` gives ``value`` (copies*B, ...) and all that does not depend on it is as
        ``known`` for B images."""
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
        return run_node(node, values, self.modules, lambda target: operator.attrgetter(target)(self.module))


def _writes(node: fx.Node) -> bool:
    """Whether a node calls a method that writes into its tensor."""
    return node.op == "call_method" and name_of(node).endswith("_") and not name_of(node).endswith("__") and node.target != "requires_grad_"


def _check_writes(traced: fx.GraphModule) -> None:
    """That every method that writes has a twin that does not.

    Raises:
        ValueError: For one that has none, such as ``copy_``.
    """
    for node in traced.graph.nodes:
        if _writes(node) and not callable(getattr(Tensor, name_of(node).rstrip("_"), None)):
            raise ValueError(f"its forward calls {node.target}, which writes into a tensor")


def _graph_out_of_place(traced: fx.GraphModule) -> None:
    for node in traced.graph.nodes:
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        if node.op == "call_function" and node.target in OUT_OF_PLACE:
            node.target = OUT_OF_PLACE[node.target]
        elif _writes(node):
            node.target = name_of(node).rstrip("_")
    traced.recompile()


def freeze(model: nn.Module | FrozenNetwork, images: Inputs) -> FrozenNetwork:
    """A network as a FrozenNetwork, which it may be already."""
    return model if isinstance(model, FrozenNetwork) else FrozenNetwork(model, cut(images, 0, 1))
