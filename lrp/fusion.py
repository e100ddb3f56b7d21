"""Batch norm folded into the layer before it, for inference."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lrp.errors import InputError
from lrp.layers import LowRank, LowRankLinear, replace_layer

FOLDABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Folded(nn.Identity):
    """What is left of a batch norm that was folded into the layer named ``into``.

    Behind a Linear (``flat``) values have to be (B, features): over (B, tokens, features) a batch norm normalises tokens.
    """

    def __init__(self, into: str, flat: bool) -> None:
        super().__init__()
        self.into, self.flat = into, flat
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.flat and x.dim() != 2:
            raise InputError(f"fuse: the batch norm behind layer {self.into} is over tokens, not over its features, and cannot be folded")
        return x


class Tracer(fx.Tracer):
    """Low-rank layers are one call each, as the layers were that they replace."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (LowRank, Folded)) or super().is_leaf_module(m, module_qualified_name)


def default_of(node: fx.Node) -> Any:
    """What an argument of the network after the first is where the network is called with its images alone."""
    return node.args[0] if node.args else {} if node.target.startswith("**") else ()


def run_node(node: fx.Node, values: Mapping[fx.Node, Any], modules: Mapping[str, nn.Module], attribute: Callable[[str], Any]) -> Any:
    """What a node that is no placeholder gives for the ``values`` of those before it; ``attribute`` reads what get_attr names."""
    args = fx.node.map_arg(node.args, values.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
    if node.op == "call_module":
        return modules[node.target](*args, **kwargs)
    if node.op == "call_function":
        return node.target(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], node.target)(*args[1:], **kwargs)
    if node.op == "get_attr":
        return attribute(node.target)
    return args[0]  # output


def pairs_to_fold(graph: fx.Graph, modules: dict[str, nn.Module]) -> list[tuple[fx.Node, fx.Node]]:
    """The calls of a layer and of the batch norm that alone reads its output; both run once."""
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    found = []
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        norm, layer = modules[node.target], modules[before.target]
        plain = type(layer) in FOLDABLE and "weight" in layer._parameters  # not one that is computed from other parameters
        if isinstance(norm, _BatchNorm) and norm.track_running_stats and (plain or isinstance(layer, LowRank)):
            if calls[node.target] == calls[before.target] == 1 and _features_second(layer, norm):
                found.append((before, node))
    return found


def _features_second(layer: nn.Module, norm: _BatchNorm) -> bool:
    """Whether the numbers of features fit: after a Linear over tokens a BatchNorm1d normalises tokens, which ``Folded`` notices
    where there are as many."""
    return norm.num_features == (layer.rows if isinstance(layer, LowRank) else layer.weight.shape[0])


def scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """A batch norm in eval mode as scale * x + shift, both (features,)."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = -norm.running_mean * scale
    return (norm.weight * scale, norm.weight * shift + norm.bias) if norm.affine else (scale, shift)


@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """A copy of a network in eval mode whose batch norms are folded into the layers before them, dense and low-rank.

    It computes what the network computes in eval mode, up to rounding, and is for inference: there is nothing left to
    re-estimate. Batch norms without a layer directly before them stay, and those behind tied weights. Raises InputError for
    a network whose calls torch.fx cannot trace.
    """
    result = copy.deepcopy(model).eval()
    try:
        graph = Tracer().trace(result)
    except Exception as error:  # whatever the forward raised when it met a proxy
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"fuse: torch.fx cannot trace the network ({reason}), so what follows what is not known") from error
    modules: dict[str, Any] = dict(result.named_modules())
    holders = Counter(id(p) for module in modules.values() for p in module._parameters.values())
    for before, node in pairs_to_fold(graph, modules):
        layer, norm = modules[before.target], modules[node.target]
        if not isinstance(layer, LowRank) and holders[id(layer.weight)] > 1:
            continue  # scaling a tied weight would scale what else reads it
        scale, shift = scale_and_shift(norm)
        if isinstance(layer, LowRank):
            layer.scale_rows(scale, shift)
        else:
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
            bias = shift if layer.bias is None else layer.bias * scale + shift
            layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=layer.weight.requires_grad)
        result = replace_layer(result, node.target, Folded(before.target, isinstance(layer, (nn.Linear, LowRankLinear))))
    return result
