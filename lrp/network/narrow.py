"""Filters that are really removed: the layers get narrower, and so does whatever reads them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Inputs, call, on_tensors, tensors
from lrp.errors import InputError, first_line, some
from lrp.layer.build import kind_of
from lrp.layer.duplicate import duplicate, measured_copy
from lrp.layer.sliced import is_depthwise, keep_inputs, keep_outputs
from lrp.network.arithmetic import layer_input
from lrp.network.channels import Channels, find_channels
from lrp.network.trace import name_of, pairs_to_fold

log = logging.getLogger(__name__)
ROUNDING = 1e-5  # of the largest entry: constants that differ by less from place to place are one
MEETS = "something that it is added to stays, or nothing would be left of a layer"


@dataclass
class Narrowed:
    """A network without some of its filters.

    Attributes:
        model: The network.
        rows: Of each layer that has fewer outputs now: which of its former ones they are, (M',) int64.
        zeroed: Of each layer of which filters could not be removed: how many are zero instead, and why.
        moved: Of each layer that reads constants which depend on the place (next to padding) or on the call (of several): by how much at
            most the constant that its bias now holds is off, as a share of the largest of its outputs on the example.
    """

    model: nn.Module
    rows: dict[str, Tensor] = field(default_factory=dict)
    zeroed: dict[str, tuple[int, str]] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)


def narrow(
    model: nn.Module,
    inputs: Inputs,
    keep: Mapping[str, Tensor],
    channels: Channels | None = None,
    leave: Mapping[str, str] | None = None,
) -> Narrowed:
    """A copy of a network without the filters that ``keep`` does not name; in eval mode it computes what the network computes whose rows of
    the layer matrices are zero there.

    A filter goes where all goes that it is added to or meets (``find_channels``); else its row is zero, which ``zeroed`` says. A layer
    keeps at least one. What a filter of zeros still gives is a constant: of its bias, through batch norms and activations, which no input
    changes. What the layers behind it make of that goes into their bias, or into the mean of the batch norm behind them. Next to padding
    it depends on the place, and its mean is taken; ``moved`` says by how much that is off.

    Args:
        model: The network, which stays as it is.
        inputs: One example (1, ...), as the network takes it.
        keep: Of layers, by their names, which of their M outputs stay: (M,) bool.
        channels: What ``find_channels`` found of the network, where that is known.
        leave: Layers whose inputs and outputs stay as they are, with the reasons; they may have rows of zeros.

    Raises:
        InputError: For a network that torch.fx cannot trace, and for one that cannot run without the features.
    """
    found = channels if channels is not None else find_channels(model, inputs, leave)
    result = Narrowed(duplicate(model))
    _zero(result.model, keep)
    gone = removable(found, keep)
    for name, mask in keep.items():
        held = found.outputs.get(name)
        stays = [c for c in held[~mask].tolist() if c not in gone] if held is not None else [-1] * int((~mask).sum())
        if stays:
            result.zeroed[name] = len(stays), _why(found, name, stays[0])
    if not gone:
        return result
    _fold_constants(result, found, gone, inputs)
    before = result.model
    y = _run(before, inputs)
    for name, module in dict(before.named_modules()).items():
        for held, cut in ((found.inputs, keep_inputs), (found.norms, keep_outputs), (found.outputs, keep_outputs)):
            if name not in held or (cut is keep_inputs and is_depthwise(module)):
                continue
            stay = torch.tensor([c not in gone for c in held[name].tolist()])
            if not bool(stay.all()):
                cut(module, stay)
                if held is found.outputs:
                    result.rows[name] = stay.nonzero()[:, 0]
    _check(result.model, inputs, y)
    if result.moved:
        log.info(
            "features whose constants depend on the place were removed, their mean is kept: %s",
            some([f"layer {name} is off by at most {share:.1%}" for name, share in result.moved.items()]),
        )
    return result


def removable(found: Channels, keep: Mapping[str, Tensor]) -> set[int]:
    """The channels that can go where the rows go that ``keep`` does not name: those of which no row stays, and no layer's last ones."""
    stay, asked = set(found.reasons), set[int]()
    for name, held in found.outputs.items():
        if name not in found.depthwise:
            mask = keep.get(name, torch.ones(len(held), dtype=torch.bool))
            stay |= set(held[mask].tolist())
            asked |= set(held[~mask].tolist())
    gone = asked - stay
    for held in (*found.outputs.values(), *found.inputs.values()):
        if gone.issuperset(held.tolist()):
            gone.discard(min(held.tolist()))
    return gone


def _why(found: Channels, name: str, channel: int) -> str:
    """Why rows of a layer are zero and not gone."""
    if name not in found.outputs:
        return "it is not known what reads it"
    if name in found.depthwise:
        return "depthwise filters go with what they read"
    return found.reason(channel) or MEETS


@torch.no_grad()
def _zero(model: nn.Module, keep: Mapping[str, Tensor]) -> None:
    """Let the rows that are not kept be zero, in place.

    Raises:
        ValueError: For masks of another length than the layer has rows.
    """
    for name, mask in keep.items():
        layer: Any = model.get_submodule(name)
        kind = kind_of(layer)
        if mask.shape != (kind.rows(layer),):
            raise ValueError(f"layer {name}: its mask is of {tuple(mask.shape)}, it has {kind.rows(layer)} outputs")
        if bool(mask.all()):
            continue
        matrix = kind.as_matrix(layer, layer.weight.detach()).clone()
        matrix[~mask] = 0
        layer.weight.copy_(kind.as_weight(layer, matrix))


@torch.no_grad()
def _fold_constants(result: Narrowed, found: Channels, gone: set[int], inputs: Inputs) -> None:
    """Put what layers make of the constants of the removed channels where it stays."""
    model = result.model
    twin = measured_copy(model)
    modules: dict[str, Any] = dict(twin.named_modules())
    readers = {name: torch.tensor([c in gone for c in held.tolist()]) for name, held in found.inputs.items()}
    readers = {name: mask for name, mask in readers.items() if bool(mask.any()) and not is_depthwise(modules[name])}
    parts: dict[str, list[Tensor]] = {name: [] for name in readers}
    largest: dict[str, float] = dict.fromkeys(readers, 0.0)

    def look(name: str, part: nn.Module, x: Tensor, output: Tensor) -> None:
        kind, mask = kind_of(part), readers[name]
        last = kind.feature_dim == -1
        gives = part(x[..., mask] if last else x[:, mask])
        parts[name].append(kind.features_last(gives).flatten(0, -2))
        largest[name] = max(largest[name], float(output.abs().max()))

    handles = []
    for name, mask in readers.items():
        part = duplicate(modules[name])
        keep_inputs(part, mask)
        part.bias = None
        handles.append(
            modules[name].register_forward_hook(
                lambda _, args, kwargs, output, name=name, part=part: look(name, part, layer_input(args, kwargs), output), with_kwargs=True
            )
        )
    try:
        call(twin, on_tensors(Tensor.clone, inputs))
    finally:
        for handle in handles:
            handle.remove()
    behind = {name_of(layer): name_of(norm) for layer, norm in pairs_to_fold(found.graph, modules)}
    for name, given in parts.items():
        given = torch.cat(given)
        mean = given.mean(0)
        off = float((given - mean).abs().max())
        if off > ROUNDING * max(float(given.abs().max()), torch.finfo(given.dtype).tiny):
            result.moved[name] = off / max(largest[name], torch.finfo(given.dtype).tiny)
        if not bool(mean.any()):
            continue
        layer: Any = model.get_submodule(name)
        if layer.bias is not None:
            layer.bias += mean.to(layer.bias)
        elif name in behind:
            norm: Any = model.get_submodule(behind[name])
            norm.running_mean -= mean.to(norm.running_mean)
        else:
            layer.bias = nn.Parameter(mean.to(layer.weight), requires_grad=layer.weight.requires_grad)
            layer.added_bias = True


def _run(model: nn.Module, inputs: Inputs) -> Any:
    with torch.no_grad():
        return call(measured_copy(model), on_tensors(Tensor.clone, inputs))


def _check(model: nn.Module, inputs: Inputs, y: Any) -> None:
    """That a network runs, and gives outputs of the shapes of ``y``.

    Raises:
        InputError: Where it does not.
    """
    try:
        now = _run(model, inputs)
    except Exception as error:  # a forward that counts on the sizes that its layers had
        reason = f"it cannot run without the features ({first_line(error)})"
        raise InputError("model", type(model).__name__, reason) from error
    if [tuple(each.shape) for each in tensors(now)] != [tuple(each.shape) for each in tensors(y)]:
        raise InputError("model", type(model).__name__, "its outputs have other shapes without the features")
