"""The graph of a network: how it is traced, how a node is run, and which batch norms fold into the layers before them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.batchnorm import _BatchNorm

from lrp.errors import InputError
from lrp.inputs import Inputs, arguments, leaves
from lrp.layer.build import find_kind
from lrp.layer.compressed import Compressed
from lrp.network.state import unchanged_state


class Folded(nn.Identity):
    """What is left of a batch norm that was folded into the layer named ``into``.

    Behind a layer whose features are the last dimension (``flat``) values have to be (B, features): over (B, tokens, features) a
    batch norm normalises tokens.
    """

    def __init__(self, into: str, flat: bool) -> None:
        super().__init__()
        self.into, self.flat = into, flat
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The input as it is: the layer ``into`` does the work.

        Raises:
            InputError: For tokens where features were folded: an input of another shape than (B, features).
        """
        if self.flat and x.dim() != 2:
            raise InputError(f"fuse: the batch norm behind layer {self.into} is over tokens, not over its features, and cannot be folded")
        return x


class Tracer(fx.Tracer):
    """Compressed layers are one call each, as the layers were that they replace."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Compressed layers and folded batch norms are one node each in the graph."""
        return isinstance(m, (Compressed, Folded)) or super().is_leaf_module(m, module_qualified_name)


def name_of(node: fx.Node) -> str:
    """What a node that is not a call_function refers to: a module, a method, an attribute or an argument."""
    assert isinstance(node.target, str), node.op
    return node.target


def default_of(node: fx.Node) -> Any:
    """What an argument of the network after the first is where the network is called with its images alone."""
    return node.args[0] if node.args else {} if name_of(node).startswith("**") else ()


def trace(model: nn.Module, inputs: Inputs | None = None) -> fx.Graph:
    """The graph of a network as a batch ``inputs`` calls it: arguments that the batch does not give are fixed at their defaults, and
    those that hold no tensor at their values.

    Without ``inputs`` every argument is an input of the graph. Whatever the network raises when it meets a proxy is raised.
    """
    if inputs is None:
        return _traced(model)
    signature = inspect.signature(model.forward)
    given = arguments(inputs)
    bound = signature.bind(*given.args, **given.kwargs)
    absent = {n: p.default for n, p in signature.parameters.items() if n not in bound.arguments and p.default is not p.empty}
    single = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    constant = {n: v for n, v in bound.arguments.items() if signature.parameters[n].kind in single and not leaves(v)}
    graph = _traced(model, {**absent, **constant})
    for node in graph.nodes:  # torch.fx gives these a number, and the argument's default as theirs
        name = re.sub(r"_\d+$", "", name_of(node)) if node.op == "placeholder" and name_of(node) not in signature.parameters else None
        if name in constant:
            node.args = (constant[name],)
    return graph


def _traced(model: nn.Module, fixed: Mapping[str, Any] | None = None) -> fx.Graph:
    with unchanged_state(model):  # a forward that keeps values would keep the tracer's
        graph = Tracer().trace(model, concrete_args=dict(fixed) if fixed else None)
        read = [name_of(node) for node in graph.nodes if node.op == "get_attr"]
        constants = {name: vars(model)[name] for name in read if name in vars(model)}
    vars(model).update(constants)  # the graph reads those that the tracer has put there
    return graph


def placeholders(nodes: Sequence[fx.Node], inputs: Inputs) -> dict[fx.Node, Any]:
    """Which arguments of a traced network a batch gives: a tuple by position, a mapping by name, anything else the first."""
    found = [node for node in nodes if node.op == "placeholder"]
    given = arguments(inputs)
    by_name = {node: given.kwargs[name_of(node)] for node in found if name_of(node) in given.kwargs}
    return dict(zip(found, given.args, strict=False)) | by_name


def run_node(node: fx.Node, values: Mapping[fx.Node, Any], modules: Mapping[str, nn.Module], attribute: Callable[[str], Any]) -> Any:
    """What a node that is not a placeholder gives for the ``values`` of those before it; ``attribute`` reads what get_attr names."""
    args: Any = map_arg(node.args, values.__getitem__)
    kwargs: Any = map_arg(node.kwargs, values.__getitem__)
    if node.op == "call_module":
        return modules[name_of(node)](*args, **kwargs)
    if node.op == "call_function":
        assert callable(node.target)
        return node.target(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], name_of(node))(*args[1:], **kwargs)
    if node.op == "get_attr":
        return attribute(name_of(node))
    return args[0]  # output


def pairs_to_fold(graph: fx.Graph, modules: dict[str, nn.Module]) -> list[tuple[fx.Node, fx.Node]]:
    """The calls of a layer and of the batch norm that alone reads its output; both run once."""
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[name_of(node)] = calls.get(name_of(node), 0) + 1
    found = []
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        norm, layer = modules[name_of(node)], modules[name_of(before)]
        kind = find_kind(layer)
        if kind is None or not kind.foldable(layer) or not isinstance(norm, _BatchNorm) or not norm.track_running_stats:
            continue
        once = calls[name_of(node)] == calls[name_of(before)] == 1
        if once and norm.num_features == kind.rows(layer):  # where a norm is over as many tokens, ``Folded`` notices
            found.append((before, node))
    return found


def last_layers(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> set[str]:
    """The layers from which a way leads to the network's output that meets no other layer."""
    found, seen = set[str](), set[fx.Node]()
    waiting = [node for node in graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "call_module" and find_kind(modules[name_of(node)]) is not None:
            found.add(name_of(node))
        else:
            waiting += node.all_input_nodes
    return found


def scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """A batch norm in eval mode as scale * x + shift, both (features,)."""
    assert norm.running_var is not None and norm.running_mean is not None, "it tracks them (``pairs_to_fold``)"
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean * scale
    return (norm.weight * scale, norm.weight * shift + norm.bias) if norm.affine else (scale, shift)
