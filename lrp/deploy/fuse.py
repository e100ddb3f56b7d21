"""Batch norms, and orders of channels, folded into the layers before them, for inference."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from lrp.deploy.reorder import fold_orders
from lrp.errors import InputError
from lrp.layer.build import kind_of, replace_layer
from lrp.layer.compressed import Compressed
from lrp.layer.duplicate import check_module, duplicate, ordinary
from lrp.layer.permuted import Permuted
from lrp.network.trace import Folded, name_of, pairs_to_fold, scale_and_shift, trace


@ordinary
@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """A copy of a network in eval mode whose batch norms are folded into the layers before them, dense and low-rank; and so are the orders
    in which layers read their input channels (``blocking=clustered``), where the layer before gives its outputs to that one alone.

    It computes what the network computes in eval mode, up to rounding, and is for inference: there is nothing left to
    re-estimate. Batch norms without a layer directly before them stay, and those behind tied weights.

    Raises:
        InputError: For a network whose calls torch.fx cannot trace.
    """
    result = duplicate(check_module(model)).eval()
    norms, orders = (any(isinstance(m, kind) for m in result.modules()) for kind in (nn.modules.batchnorm._NormBase, Permuted))
    if not norms and not orders:
        return result  # there is nothing to fold, whether or not torch.fx could find where
    try:
        graph = trace(result)
    except Exception as error:  # whatever the forward raised when it met a proxy
        if not norms:
            return result  # its layers go on reordering what they read
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"fuse: torch.fx cannot trace the network ({reason}), so it is not known which layer each batch norm follows"
        ) from error
    modules: dict[str, Any] = dict(result.named_modules())
    holders = Counter(id(p) for module in modules.values() for p in module._parameters.values())
    for before, node in pairs_to_fold(graph, modules):
        layer, norm = modules[name_of(before)], modules[name_of(node)]
        held = [p for key, p in layer.named_parameters() if key != "bias"] if isinstance(layer, Compressed) else [layer.weight]
        if any(holders[id(p)] > 1 for p in held):
            continue  # scaling a tied weight would scale what else reads it
        scale, shift = scale_and_shift(norm)
        kind = kind_of(layer)
        kind.scale_rows(layer, scale, shift)
        result = replace_layer(result, name_of(node), Folded(name_of(before), kind.feature_dim == -1))
    fold_orders(result, graph)
    return result
