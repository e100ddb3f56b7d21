"""Orders of input channels taken into the layers before."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from lrp.layer.build import find_kind
from lrp.layer.compressed import Compressed
from lrp.layer.permuted import Permuted
from lrp.network.trace import Folded, name_of

# What treats all channels alike and each by itself, wherever their dimension is; and what does so with maps.
EACH = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.ELU, nn.SELU, nn.CELU, nn.Sigmoid,
    nn.Tanh, nn.Softplus, nn.Mish, nn.Identity, nn.Dropout, Folded,
)  # fmt: skip
MAPS = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.Dropout1d, nn.Dropout2d)
EACH_BY_CALL = (torch.relu, torch.sigmoid, torch.tanh, F.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.hardswish, F.elu, F.mish, F.dropout)
MAPS_BY_CALL = (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.max_pool1d, F.avg_pool1d)
METHODS = ("relu", "relu_", "sigmoid", "tanh", "contiguous", "clone")


@torch.no_grad()
def fold_orders(model: nn.Module, graph: fx.Graph) -> None:
    """Let the layers before ``Permuted`` ones give their outputs in the order in which these read them, in place: where the outputs of a
    layer go through what treats each channel by itself into that one layer and nowhere else. The others go on reordering their input."""
    modules: dict[str, Any] = dict(model.named_modules())
    calls = Counter(name_of(node) for node in graph.nodes if node.op == "call_module")
    holders = Counter(id(p) for module in modules.values() for p in module._parameters.values() if p is not None)
    for node in [node for node in graph.nodes if node.op == "call_module"]:
        reader = modules[name_of(node)]
        if not isinstance(reader, Permuted) or reader.order is None or calls[name_of(node)] > 1:
            continue
        found = _chain(node, modules, calls)
        if found is None or any(holders[id(p)] > 1 for module in found for p in module.parameters()):
            continue
        *norms, layer = found
        order = reader.order.long()
        if not _reorder_rows(layer, order):
            continue
        for norm in norms:
            for values in (*norm.parameters(), norm.running_mean, norm.running_var):
                values.copy_(values[order])
        reader.order = None


def _chain(node: fx.Node, modules: dict[str, Any], calls: Counter[str]) -> list[Any] | None:
    """The batch norms between a layer and the one before it that alone it reads, backwards, and that layer; None where there is none."""
    kind, norms = find_kind(modules[name_of(node)]), []
    assert kind is not None
    maps = kind.feature_dim == 1
    while True:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or len(before.users) != 1 or len(before.all_input_nodes) != 1:
            return None
        node = before
        if node.op == "call_function":
            if node.target not in EACH_BY_CALL and not (maps and node.target in MAPS_BY_CALL):
                return None
        elif node.op == "call_method":
            if node.target not in METHODS:
                return None
        elif node.op == "call_module":
            module = modules[name_of(node)]
            if isinstance(module, EACH) or maps and isinstance(module, MAPS):
                continue
            if calls[name_of(node)] > 1:
                return None
            if maps and isinstance(module, _BatchNorm) and module.track_running_stats:
                norms.append(module)
                continue
            same = find_kind(module)
            return [*norms, module] if same is kind else None
        else:
            return None


def _reorder_rows(layer: Any, order: torch.Tensor) -> bool:
    """Whether a layer now gives its outputs in this order; where it cannot nothing was done."""
    kind = find_kind(layer)
    if kind is None or kind.rows(layer) != len(order):
        return False
    if isinstance(layer, Compressed):
        return layer.reorder_rows(order)
    if not kind.foldable(layer) or getattr(layer, "groups", 1) > 1:
        return False
    for values in [layer.weight] if layer.bias is None else [layer.weight, layer.bias]:
        values.copy_(values[order])
    return True
