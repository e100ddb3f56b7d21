"""Low-rank layers as plain layers of torch, for tools that know no others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lrp.errors import InputError
from lrp.layer.base import LowRank
from lrp.layer.build import check_reach, replace_layer
from lrp.layer.chain import chained
from lrp.layer.compressed import Compressed
from lrp.layer.duplicate import check_module, duplicate, ordinary

log = logging.getLogger(__name__)


@ordinary
def unfold(model: nn.Module) -> nn.Module:
    """A copy of a network in which each compressed layer is one to four plain layers of torch, one after the other: of a matrix and of the
    spatial form two, of Tucker-2 three, of the nested form four. Pivoted layers hold more numbers then.

    It computes the same. Quantisation, TorchScript, adapters and optimiser groups by name then see Linear and convolutions;
    ``lrp.save`` does not write such a network, its ``state_dict`` does. Of factors that several layers hold (tied weights) one parameter
    stays in all that have it in one shape; an embedding and an output layer then share the large factor, and hold the small one twice.
    Layers of several blocks, empty ones, spatial and nested ones with
    a padding mode other than zeros, and those with buffers or hooks stay as they are, which the log says.

    Raises:
        InputError: For a network without a low-rank layer, for one that is a single low-rank layer of several blocks, and where a closure
            of the network holds such a layer.
    """
    result = duplicate(check_module(model))
    names = [name for name, module in result.named_modules() if isinstance(module, Compressed)]
    if not names:
        raise InputError("model", type(model).__name__, "it has no low-rank layer")
    check_reach(model, [name for name in names if name], "unfold")
    changed = False
    made: dict[Any, nn.Parameter] = {}  # of factors of several layers, by what they were copied from
    for name in names:
        layer = result.get_submodule(name)
        assert isinstance(layer, Compressed)
        held = layer._buffers.keys() - {*layer.own} or layer._forward_hooks or layer._forward_pre_hooks
        with torch.random.fork_rng(devices=[]):  # plain layers draw weights when they are made, before they get theirs
            plain = "it has buffers or hooks" if held else layer.plain_layers()
        if isinstance(plain, str):
            log.warning("layer %s stays as it is: %s", name or "(the network)", plain)
        else:
            if isinstance(layer, LowRank) and layer.tied_factors:
                _share(plain, layer, made)
            result, changed = replace_layer(result, name, chained(plain, layer).train(layer.training)), True
    if changed:
        result.lrp_unfolded = True  # type: ignore[assignment]
    return result


def _share(plain: Sequence[Any], layer: LowRank, made: dict[Any, nn.Parameter]) -> None:
    """Let plain layers hold the parameters that those of another layer, with the same factors, have in the same shape."""
    first = next(id(p) for key, p in layer.named_parameters() if key != "bias")  # of all that share them the same
    for each in plain:
        known = [weight for (of, _), weight in made.items() if of == first and weight.shape == each.weight.shape]
        each.weight = next((weight for weight in known if torch.equal(weight, each.weight)), each.weight)
        made[first, id(each.weight)] = each.weight


as_plain = unfold  # what other tools call such a network
