"""Stand-ins put in the places of modules, and modules put back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lrp.inputs import Inputs, alike, call
from lrp.layer.build import replace_layer
from lrp.layer.carry import carry_over
from lrp.layer.compressed import Compressed
from lrp.layer.duplicate import duplicate
from lrp.standin.base import StandIn
from lrp.standin.known import KINDS, NAMED
from lrp.standin.subclass import of_class, parent_of


def with_stand_ins(model: nn.Module, example: Inputs | None = None) -> nn.Module:
    """A copy of a network in which Linear layers and convolutions stand in for every module that is made of them; the network itself
    where there is none. Modules that tie a weight to another module stay; so do, given an ``example`` of its inputs, those whose own
    methods the network calls from outside.

    The copy shares the parameters of all other modules with the network: neither is to be trained while both are in use.

    Raises:
        InputError: For a network that holds something which cannot be copied.
    """
    found = _find(model)
    result = _with(model, found)
    asked = {name for name in found if _has_methods(model.get_submodule(name))}
    if example is None or not asked or alike(_output(result, example), _output(model, example)):
        return result
    return _with(model, {name: kind for name, kind in found.items() if name not in asked})


def _with(model: nn.Module, found: Mapping[str, StandIn]) -> nn.Module:
    if not found:
        return model
    result = duplicate(model, share=True)
    for name, kind in found.items():
        result = stand_in(result, name, kind)
    return result


def _has_methods(module: nn.Module) -> bool:
    parent = parent_of(module)
    return parent is not None and any(hasattr(value, "__get__") for value in of_class(module, parent).values())


@torch.no_grad()
def _output(model: nn.Module, example: Inputs) -> Any:
    twin = duplicate(model).eval()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return call(twin, example)
    except Exception:  # whatever the network raises
        return None


def stand_in(model: nn.Module, name: str, kind: StandIn) -> nn.Module:
    """The network, with a stand-in of this kind for the module ``name``."""
    module = model.get_submodule(name)
    layer = kind.make(module)
    carry_over(module, layer)
    layer.lrp_stands_for = kind.name  # type: ignore[assignment]
    return replace_layer(model, name, layer.train(module.training))


def stand_ins(model: nn.Module) -> dict[str, str]:
    """The stand-ins of a network, compressed or not: of each the name of its kind."""
    return {name: str(module.lrp_stands_for) for name, module in model.named_modules() if hasattr(module, "lrp_stands_for")}


def put_back(model: nn.Module, original: nn.Module) -> nn.Module:
    """The network that was made from ``with_stand_ins(original)``, with the module itself for each stand-in that did not change."""
    for name, kind in stand_ins(model).items():
        module, before = model.get_submodule(name), original.get_submodule(name)
        if not _same_state(module, NAMED[kind].make(before)):
            continue
        own = duplicate(before)
        if NAMED[kind].shares:  # ties to other modules stay
            held = [place for place, parameter in before._parameters.items() if parameter is not None]
            for place, value in zip(held, list(module.parameters())):  # the stand-in has those of modules inside after its own
                own.register_parameter(place, value)
        model = replace_layer(model, name, own)
    for name, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoder) and not any(_changed(part) for part in module.modules()):
            vars(module)["use_nested_tensor"] = vars(original.get_submodule(name))["use_nested_tensor"]
    return model


def _changed(module: nn.Module) -> bool:
    return isinstance(module, Compressed) or hasattr(module, "lrp_stands_for")


def _find(model: nn.Module) -> Mapping[str, StandIn]:
    """For which modules there is a stand-in, and its kind."""
    holders = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    found: dict[str, StandIn] = {}
    for name, module in model.named_modules():
        if any(outer == "" or name.startswith(f"{outer}.") for outer in found):
            continue
        kind = next((kind for kind in KINDS if kind.stands_for(module)), None)
        if kind is not None and (kind.shares or all(holders[id(p)] == 1 for p in module.parameters())):
            found[name] = kind
    return found


def _same_state(module: nn.Module, other: nn.Module) -> bool:
    ours, theirs = module.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[key].nan_to_num(), theirs[key].nan_to_num()) for key in ours)
