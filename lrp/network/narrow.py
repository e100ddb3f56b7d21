"""Filters that are really removed: the layers get narrower, and so does whatever reads them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Batches, Inputs, call, tensors
from lrp.errors import InputError, first_line, some
from lrp.layer.build import kind_of
from lrp.layer.duplicate import duplicate, measured_copy
from lrp.layer.sliced import is_depthwise, keep_inputs, keep_outputs
from lrp.network.arithmetic import layer_input
from lrp.network.channels import find_channels
from lrp.network.follow import Channels
from lrp.network.trace import name_of, pairs_to_fold

log = logging.getLogger(__name__)
AT_ONCE = 64  # examples that run at a time
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
    constants: Batches | str = "rows",
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
        constants: What features that go leave behind: "rows", the constants above; "none", nothing, as if they were zero where they are
            read; or examples: the mean of what the layers behind made of them in the network as it was.

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
    if constants == "rows":
        seen = _contributions(measured_copy(result.model), found, gone, [inputs])
        result.moved = {name: each.off() for name, each in seen.items() if each.off()}
    else:
        seen = {} if isinstance(constants, str) else _contributions(measured_copy(model), found, gone, constants.split(AT_ONCE))
    _fold(result.model, found, {name: each.total / each.count for name, each in seen.items()})
    before = result.model
    y = _run(before, inputs)
    for name, module in dict(before.named_modules()).items():
        depthwise = is_depthwise(module)  # as a grouped one may become
        for held, cut in ((found.norms, keep_outputs), (found.outputs, keep_outputs), (found.inputs, keep_inputs)):
            if name not in held or (cut is keep_inputs and depthwise):
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


class _Seen:
    """What a layer makes of the features that go, at all places where it was looked at: the sum, the count and the extremes, (M,) each."""

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.low: Any = math.inf
        self.high: Any = -math.inf
        self.count, self.largest = 0, 0.0

    def add(self, gives: Tensor, output: Tensor) -> None:
        """More places, (places, M)."""
        self.total, self.count = self.total + gives.sum(0), self.count + len(gives)
        self.low = torch.minimum(gives.amin(0), torch.as_tensor(self.low).to(gives))
        self.high = torch.maximum(gives.amax(0), torch.as_tensor(self.high).to(gives))
        self.largest = max(self.largest, float(output.abs().max()))

    def off(self) -> float:
        """How far the mean is from what is given at one place, as a share of the largest output; 0.0 where that is rounding."""
        mean, tiny = self.total / self.count, torch.finfo(self.low.dtype).tiny
        found = float(torch.maximum(self.high - mean, mean - self.low).max())
        largest = float(torch.maximum(self.high.abs(), self.low.abs()).max())
        return found / max(self.largest, tiny) if found > ROUNDING * max(largest, tiny) else 0.0


@torch.no_grad()
def _contributions(twin: nn.Module, found: Channels, gone: set[int], batches: Iterable[Inputs]) -> dict[str, _Seen]:
    """What each layer of a network to be measured makes of the features that go, biases apart."""
    modules: dict[str, Any] = dict(twin.named_modules())
    masks = {name: torch.tensor([c in gone for c in held.tolist()]) for name, held in found.inputs.items()}
    masks = {name: mask for name, mask in masks.items() if bool(mask.any()) and not is_depthwise(modules[name])}
    seen = {name: _Seen() for name in masks}

    def look(name: str, part: nn.Module, x: Tensor, output: Tensor) -> None:
        kind, mask = kind_of(part), masks[name].to(x.device)
        gives = part(x[..., mask] if kind.feature_dim == -1 else x[:, mask])
        gives = kind.features_last(gives)
        seen[name].add(gives.reshape(-1, gives.shape[-1]), output)

    handles = []
    for name, mask in masks.items():
        part = duplicate(modules[name])
        keep_inputs(part, mask)
        part.bias = None
        hook = partial(lambda name, part, _, args, kwargs, output: look(name, part, layer_input(args, kwargs), output), name, part)
        handles.append(modules[name].register_forward_hook(hook, with_kwargs=True))
    try:
        for batch in batches:
            call(twin, batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@torch.no_grad()
def _fold(model: nn.Module, found: Channels, constants: Mapping[str, Tensor]) -> None:
    """Add constants (M,) to what layers give, in place: to the bias, or in the mean of the batch norm behind a layer without one."""
    behind = {name_of(layer): name_of(norm) for layer, norm in pairs_to_fold(found.graph, dict(model.named_modules()))}
    for name, constant in constants.items():
        layer: Any = model.get_submodule(name)
        if not bool(constant.any()):
            continue
        if layer.bias is not None:
            layer.bias += constant.to(layer.bias)
        elif name in behind:
            norm: Any = model.get_submodule(behind[name])
            norm.running_mean -= constant.to(norm.running_mean)
        else:
            layer.bias = nn.Parameter(constant.to(layer.weight), requires_grad=layer.weight.requires_grad)
            layer.added_bias = True


def _run(model: nn.Module, inputs: Inputs) -> Any:
    with torch.no_grad():
        return call(measured_copy(model), inputs)


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
