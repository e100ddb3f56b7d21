"""Low-rank layers put in the places of dense ones."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lrp.layer.base import LowRank
from lrp.layer.conv import LowRankConv1d, LowRankConv2d
from lrp.layer.linear import LowRankLinear
from lrp.matrices import Factors

KINDS: Mapping[type[nn.Module], type[LowRank]] = {nn.Linear: LowRankLinear, nn.Conv1d: LowRankConv1d, nn.Conv2d: LowRankConv2d}


def low_rank_layer(dense: nn.Module, factors: Sequence[Factors], keep: Sequence[Tensor]) -> nn.Module:
    """The layer with only the kept components: ``dense`` itself where every block is stored whole."""
    if all(bool(mask.all()) for mask in keep):
        return dense
    blocks = [(factor.block, None if bool(mask.all()) else int(mask.sum())) for factor, mask in zip(factors, keep)]
    layer = KINDS[type(dense)](dense, blocks)
    layer.fill(dense, factors, keep)
    return layer.train(dense.training)


def build(model: nn.Module, factors: Sequence[Factors], keep: Sequence[Tensor]) -> nn.Module:
    """A copy of a network in which every layer holds only its kept components (masks (R,), a block each).

    A block that keeps all its components is stored whole, with its original weight; with all blocks whole the copy is the
    network bit for bit. Raises ValueError for a block whose factors would not be smaller but which lacks a component.
    """
    layers: Mapping[str, list[tuple[Factors, Tensor]]] = defaultdict(list)
    for factor, mask in zip(factors, keep, strict=True):
        if not bool(mask.all()) and factor.block.is_dense(int(mask.sum())):
            raise ValueError(f"layer {factor.block.layer}: block {factor.block.index} is stored whole but lacks components")
        layers[factor.block.layer].append((factor, mask))
    result = copy.deepcopy(model)
    for name, parts in layers.items():
        layer = low_rank_layer(result.get_submodule(name), [part[0] for part in parts], [part[1] for part in parts])
        result = replace_layer(result, name, layer)
    return result


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put ``layer`` in a network's place ``name``, and wherever else the same module is registered; the network, which is
    ``layer`` itself where it has no name.

    torch's transformer encoders read the weights of their Linear layers themselves when nothing is trained; one that
    holds a low-rank layer has to call it, so that short cut is closed.
    """
    if name == "":
        return layer
    old = model.get_submodule(name)
    for place in [place for place, module in model.named_modules(remove_duplicate=False) if module is old]:
        model.set_submodule(place, layer)
    if not isinstance(layer, LowRank):
        return model
    for path, parent in model.named_modules():
        if path == "" or name.startswith(path + "."):
            if isinstance(parent, nn.TransformerEncoderLayer):
                parent.activation_relu_or_gelu = 0
            if isinstance(parent, nn.TransformerEncoder):
                parent.use_nested_tensor = False
    return model
