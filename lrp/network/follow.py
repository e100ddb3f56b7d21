"""A run of a network's graph in which every tensor is accompanied by the channel of each of its entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from lrp.batches import Inputs, on_tensors
from lrp.layer.build import kind_of
from lrp.layer.sliced import groups_of, inputs_of, is_depthwise, is_norm, why_not_sliced
from lrp.network.flow import ELEMENTWISE, FLATTEN, KINDS, KNOWN_MODULES, MOVES, PER_CHANNEL, REDUCTIONS, TOGETHER, TYPES, UNARY
from lrp.network.joined import NEVER, Count, Joined, along, compact, shape_of, sizes, tensors_of, unknown, varying
from lrp.network.moves import counts_bound, why_bound
from lrp.network.trace import last_layers, name_of, placeholders, run_node

OUTPUT = "the network's output"


@dataclass
class Channels:
    """The channels of a network: features that come and go together, each a number.

    Attributes:
        outputs: Of each layer that features can be taken out of, and that is called: the channels of its outputs, (M,) int64.
        inputs: The channels that each of its inputs reads, (inputs,) int64.
        norms: The same of each batch norm, (features,) int64.
        depthwise: The layers among them whose filters go with what they read.
        last: The layers of whose outputs the network's own are made without another layer.
        reasons: Of each channel that cannot go, why.
        graph: The network's graph.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    norms: dict[str, Tensor] = field(default_factory=dict)
    depthwise: set[str] = field(default_factory=set)
    last: set[str] = field(default_factory=set)
    reasons: dict[int, str] = field(default_factory=dict)
    graph: fx.Graph = field(default_factory=fx.Graph)

    def reason(self, channel: int) -> str | None:
        """Why a channel cannot go; None where it can."""
        return self.reasons.get(channel)


@dataclass
class Traced:
    """A graph, the layers and attributes that it reads, and the values of the attributes, some of which torch.fx makes."""

    graph: fx.Graph
    reads: set[str]
    values: dict[str, Any]


class Walk:
    """Runs of graphs on one example in which every tensor is accompanied by the channel of each of its entries."""

    def __init__(self, model: nn.Module, leave: Mapping[str, str]) -> None:
        self.model = model
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.first: dict[int, str] = {}
        for name, module in model.named_modules():
            self.first.setdefault(id(module), name)
        holders: dict[int, set[int]] = {}
        for module in model.modules():
            for parameter in module._parameters.values():
                holders.setdefault(id(parameter), set()).add(id(module))
        self.shared = {key for key, held in holders.items() if len(held) > 1}
        self.leave = leave
        self.joined = Joined()
        self.found = Channels()

    @torch.no_grad()
    def run(self, traced: Traced, inputs: Inputs) -> None:
        """Every node once, in order."""
        read = [self.first[id(self.model.get_submodule(name.rpartition(".")[0]))] for name in traced.values]
        self.leave = {**dict.fromkeys(read, "its parameters are read elsewhere, too"), **self.leave}
        values: dict[fx.Node, Any] = {}
        ids: dict[fx.Node, Any] = {}
        nodes = list(traced.graph.nodes)
        waiting = {node: len(node.users) for node in nodes}
        given = placeholders(nodes, on_tensors(Tensor.clone, inputs))
        for node in nodes:
            if node.op == "placeholder":
                values[node] = given.get(node, node.args[0] if node.args else None)
                ids[node] = unknown(values[node])
            else:
                values[node] = run_node(node, values, self.modules, traced.values.__getitem__)
                ids[node] = self._step(node, values, ids)
            for each in node.all_input_nodes:
                waiting[each] -= 1
                if not waiting[each]:
                    values.pop(each)
                    ids.pop(each)

    def result(self, graph: fx.Graph) -> Channels:
        """What was found, of a network whose own graph this is."""
        found = self.found
        found.graph = graph
        for held in (found.outputs, found.inputs, found.norms):
            for name, channels in held.items():
                held[name] = torch.tensor([self.joined.root(c) for c in channels.tolist()], dtype=torch.int64)
        found.last = {self.first[id(self.modules[name])] for name in last_layers(graph, self.modules)}
        found.reasons = {self.joined.root(c): reason for c, reason in reversed(self.joined.reasons.items())}
        return found

    def _step(self, node: fx.Node, values: Mapping[fx.Node, Any], ids: Mapping[fx.Node, Any]) -> Any:
        """The channels of what a node gives."""
        out = values[node]
        read = [ids[each] for each in node.all_input_nodes]
        if node.op == "output":
            self.joined.fix(read, OUTPUT)
            return None
        if node.op == "get_attr":
            return unknown(out)
        if node.op == "call_module":
            return self._module(node, out, ids)
        name = name_of(node) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
        first = node.args[0] if node.args else None
        x = ids[first] if isinstance(first, fx.Node) else None
        if name == "getitem" and isinstance(x, tuple) and len(node.all_input_nodes) == 1:  # at places, not a node's
            return x[cast(Any, node.args[1])]
        if not tensors_of(out if isinstance(out, tuple) else (out,)):
            return self._number(node, x, read, name)
        if name not in MOVES and name != "getitem":
            self.joined.fix([each for each in read if not isinstance(each, Tensor)], f"{name} is given how many there are")
        if name in TOGETHER and len(node.args) > 1:
            return self._together(node, out, ids, name)
        if name == "cat" or name == "concat":
            return self._cat(node, out, ids)
        if not isinstance(x, Tensor):
            return self._barrier(read, out, name)
        if name in UNARY and isinstance(out, Tensor) and out.shape == x.shape:
            return x if len(read) == 1 or name in TYPES else self._barrier(read, out, name)
        if name in PER_CHANNEL:
            return self._per_channel(x, out, name)
        if name in REDUCTIONS:
            return self._reduce(node, x, out, name)
        if name in MOVES or name == "getitem":
            return self._move(node, x, out, ids, values, name)
        return self._barrier(read, out, name)

    def _number(self, node: fx.Node, x: Any, read: list[Any], name: str) -> Any:
        """Of what is no tensor the channels that it counts; what depends on values of features is no count of them."""
        if not isinstance(x, Tensor):
            return Count(tuple(tensors_of(read)))
        asked = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        if name == "size" or (name, asked) == ("getattr", "shape"):
            return sizes(x)[asked] if isinstance(asked, int) else sizes(x)
        if name == "numel":
            return Count(tuple(tensors_of([each.channels for each in sizes(x)])))
        if name not in KINDS and (name, asked) not in {("getattr", each) for each in KINDS}:
            self.joined.fix(x, f"{name} reads it")
        return Count()

    def _barrier(self, read: Any, out: Any, name: str) -> Any:
        """Nothing that is read here can go."""
        self.joined.fix(read, f"{name} reads it")
        return unknown(out)

    def _together(self, node: fx.Node, out: Any, ids: Mapping[fx.Node, Any], name: str) -> Any:
        """Two values met entry by entry."""
        held = [ids[each] if isinstance(each, fx.Node) else None for each in node.args[:2]]
        both = [each for each in held if isinstance(each, Tensor)]
        if len(both) == 1 and both[0].shape == out.shape:
            return both[0]
        if len(both) < 2 or not isinstance(out, Tensor):
            return self._barrier(both, out, name)
        one, other = (each[(None,) * (out.dim() - each.dim())] for each in both)
        for a, b, spread in ((one, other, node.args[0]), (other, one, node.args[1])):
            if any(a.shape[dim] == 1 != b.shape[dim] for dim in varying(b)):  # spread over the features of the other
                constant = isinstance(spread, fx.Node) and spread.op == "get_attr"
                self.joined.fix(a, f"{name} spreads it over other features")
                if constant and b.shape == out.shape:
                    return b
                return self._barrier(b, out, f"{name} with something that changes from input to input")  # its constant would change too
        self.joined.join(compact(one), compact(other))
        return torch.broadcast_tensors(one, other)[0]

    def _cat(self, node: fx.Node, out: Any, ids: Mapping[fx.Node, Any]) -> Any:
        given: Any = node.args[0] if node.args else node.kwargs["tensors"]
        parts = ids[given] if isinstance(given, fx.Node) else [ids[each] for each in given]
        if not isinstance(parts, list | tuple):
            return self._barrier(parts, out, "cat")
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
        if not all(isinstance(part, Tensor) for part in parts) or not isinstance(dim, int):
            return self._barrier(parts, out, "cat")
        across = {d for part in parts for d in varying(part)} - {dim % out.dim()}
        if across:  # features of the parts lie side by side
            for part in parts[1:]:
                self.joined.join(compact(parts[0].select(dim, 0)), compact(part.select(dim, 0)))
        return torch.cat(parts, dim)

    def _per_channel(self, x: Tensor, out: Any, name: str) -> Any:
        """A function of each channel alone, over the dimensions behind the second."""
        if not isinstance(out, Tensor) or out.shape[:2] != x.shape[:2] or any(dim > 1 for dim in varying(x)):
            return self._barrier(x, out, name)
        return x.flatten(2)[..., :1].reshape(*x.shape[:2], *[1] * (out.dim() - 2)).expand(out.shape)

    def _reduce(self, node: fx.Node, x: Tensor, out: Any, name: str) -> Any:
        dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        keep = bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False))
        listed = [dims] if isinstance(dims, int) else dims
        if not isinstance(out, Tensor) or not isinstance(listed, list | tuple) or not all(isinstance(d, int) for d in listed):
            return self._barrier(x, out, name)
        over = [d % x.dim() for d in listed]
        if set(over) & set(varying(x)):
            return self._barrier(x, out, name)
        return x.amin(over, keepdim=keep)

    def _move(self, node: fx.Node, x: Tensor, out: Any, ids: Mapping[fx.Node, Any], values: Mapping[fx.Node, Any], name: str) -> Any:
        """The same move of the channels; those along whose dimension the move names sizes or places cannot go."""
        args = map_arg(node.args[1:], values.__getitem__)
        kwargs = map_arg(node.kwargs, values.__getitem__)
        try:
            if node.op == "call_method":
                moved = getattr(x, name.replace("view", "reshape"))(*args, **kwargs)  # channels may be expanded, which has no view
            else:
                moved = node.target(x, *args, **kwargs)  # type: ignore[operator]
        except Exception:  # a move of numbers that integers do not know
            return self._barrier(x, out, name)
        if shape_of(moved) != shape_of(out):
            return self._barrier(x, out, name)
        if (reason := why_bound(node, name, x, moved)) is not None:
            self.joined.fix(x, reason)
        self.joined.fix(counts_bound(node, name, moved, ids), f"{name} is given how many there are")
        return moved

    def _module(self, node: fx.Node, out: Any, ids: Mapping[fx.Node, Any]) -> Any:
        module, given = self.modules[name_of(node)], node.args[0] if node.args else node.kwargs.get("input")
        name, x = self.first[id(module)], ids[given] if isinstance(given, fx.Node) else None
        if not isinstance(x, Tensor) or not isinstance(out, Tensor) or len(node.all_input_nodes) != 1:
            return self._barrier([ids[each] for each in node.all_input_nodes], out, name)
        if isinstance(module, ELEMENTWISE) and out.shape == x.shape:
            return x
        if isinstance(module, FLATTEN):
            return x.flatten(module.start_dim, module.end_dim)
        if isinstance(module, KNOWN_MODULES):
            return self._per_channel(x, out, name)
        reason = self.leave.get(name, why_not_sliced(module))
        if any(id(parameter) in self.shared for parameter in module.parameters()):
            reason = "tied weight"
        if reason is not None:
            self.joined.fix(x, f"{name} reads it ({reason})")
            return unknown(out)
        return self._norm(name, x, out) if is_norm(module) else self._layer(name, module, x, out)

    def _norm(self, name: str, x: Tensor, out: Tensor) -> Tensor:
        if any(dim != 1 for dim in varying(x)) or x.dim() < 2:
            self.joined.fix(x, f"{name} normalises over other features")
            return unknown(out)
        channels = along(x, 1)
        if name in self.found.norms:
            self.joined.join(self.found.norms[name], channels)
        self.found.norms[name] = channels
        return x

    def _layer(self, name: str, module: nn.Module, x: Tensor, out: Tensor) -> Tensor:
        kind, groups = kind_of(module), groups_of(module)
        dim = kind.feature_dim % out.dim()
        if out.shape[dim] != kind.rows(module):  # a map without a batch
            return self._barrier(x, out, name)
        if any(d != dim for d in varying(x)) or x.dim() != out.dim():
            self.joined.fix(x, f"{name} reads it across its features")
            channels = torch.full((inputs_of(module),), NEVER)
        else:
            channels = along(x, dim)
        if is_depthwise(module):
            self.found.depthwise.add(name)
            outputs = channels.repeat_interleave(out.shape[dim] // groups)
        else:
            if groups > 1:
                self.joined.join(channels.view(groups, -1)[:1], channels.view(groups, -1))
            outputs = self.joined.new(out.shape[dim] // groups).repeat(groups)
        if name in self.found.inputs:  # it is called again
            self.joined.join(self.found.inputs[name], channels)
            outputs = outputs if is_depthwise(module) else self.found.outputs[name]
        self.found.inputs[name], self.found.outputs[name] = channels, outputs
        return outputs.view(*[-1 if d == dim else 1 for d in range(out.dim())]).expand(out.shape)
