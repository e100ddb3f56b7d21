"""Compressed networks in files: tensors as safetensors, beside them a description in JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lrp import __version__
from lrp.batches import odd_layout
from lrp.cost.report import COLUMNS, Report
from lrp.deploy.folder import file_to_read, file_to_write, fingerprint, from_config
from lrp.deploy.narrow import narrow_layers, restore_narrow
from lrp.deploy.reading import CONFIGURED, FROZEN, MATRIX, NARROW, STANDING, TIED, read_saved, renamed
from lrp.deploy.tied import holders, tie
from lrp.entries import not_plain, write_tensors
from lrp.errors import InputError, OwnCodeError, first_line, some
from lrp.files import check_file, check_path
from lrp.layer.build import KINDS, check_reach, find_kind, kind_of, replace_layer
from lrp.layer.compressed import Compressed
from lrp.layer.duplicate import check_values, duplicate, load_state, ordinary
from lrp.network.trace import Folded
from lrp.standin.known import NAMED
from lrp.standin.replace import stand_in, stand_ins


@ordinary
def save(model: nn.Module, path: str | Path, report: pd.DataFrame | None = None) -> None:
    """Write a network, compressed or fused or neither, to a .safetensors file: its parameters and buffers in their precision,
    and as metadata a JSON description: format and version of lrp, of each compressed layer its form and ranks, the batch norms that were
    folded, the layers that are narrower than their architecture has them, the modules for which others stand in (``lrp.standin``), the
    ``report`` (by default the one that ``compress`` gave the network), and a SHA-256 of it all.

    Tensors that are one (tied weights) are written once. The file is whole or absent. A network of transformers may be given a folder,
    which gets its config.json as well, whose fingerprint the file then holds.

    Raises:
        InputError: Where the state of the network holds something that is not a tensor, and for names with control characters.
        OSError: Where there is no room, or the folder cannot be written.
    """
    if not isinstance(model, nn.Module):
        raise InputError("save", type(model).__name__, "give a torch.nn.Module")
    to = file_to_write(model, path := check_path("save", path))
    file = check_file("save", to)
    if getattr(model, "lrp_unfolded", False):
        raise InputError("save: lrp.unfold gave this network other layers than its architecture has; write its state_dict")
    write(model, file, report, config=None if to is path else fingerprint(file.parent))


def write(
    model: nn.Module, path: Path, report: pd.DataFrame | None = None, made_from: str | None = None, config: str | None = None
) -> None:
    """As ``save``, for a file that is looked up by what it was made from as well. ``config``: of the config.json beside it.

    Raises:
        InputError: As ``save`` does.
    """
    check_values(model)
    layers, folded, biased = {}, {}, []
    tied = holders(model)
    for name, module in model.named_modules():
        if getattr(module, "added_bias", False):
            biased.append(name)
        if isinstance(module, Compressed):
            layers[name] = {"type": module.dense.__name__, "bias": module.bias is not None, "options": _options(module, module.attributes)}
            if module.form != MATRIX:
                layers[name]["form"] = module.form
            layers[name] |= module.stored()
            layers[name] |= {"tied": tied[name]} if name in tied else {}
        elif isinstance(module, Folded):
            folded[name] = module.into
    tensors, same, known = {}, {}, {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"save: the state of the network holds {name}, which is not a tensor")
        if kind := odd_layout(tensor):
            raise InputError(f"save: the state of the network holds {name}, a {kind} tensor, and a file holds dense ones")
        place = _place(tensor)
        if tensor.numel() and place in known:
            same[name] = known[place]
        else:
            known[place] = name
            tensors[name] = tensor.detach().cpu().contiguous().clone()
    report = getattr(model, "lrp_report", None) if report is None else report
    if not isinstance(report, pd.DataFrame | None):
        raise InputError("report", type(report).__name__, "give the report that lrp.compress returned")
    number = max((module.file_format for module in model.modules() if isinstance(module, Compressed)), default=1)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    description: dict[str, Any] = {
        "format": max(number, TIED) if tied else number, "version": __version__, "layers": layers, "folded": folded, "biased": biased,
        "same": same, "report": None if report is None else {"rows": json.loads(report.to_json(orient="records")), "totals": report.attrs},
    }  # fmt: skip
    more = {
        "frozen": (frozen, FROZEN), "stand_ins": (stand_ins(model), STANDING), "config": (config, CONFIGURED),
        "narrow": (narrow_layers(model), NARROW),
    }  # fmt: skip
    for entry, (value, first) in more.items():
        if value:
            description |= {entry: value, "format": max(description["format"], first)}
    if problem := not_plain([*tensors, *same, *layers]):
        raise InputError(f"save {path}: a name in the network {problem}")
    write_tensors(path, tensors, description if made_from is None else {**description, "made_from": made_from})


@ordinary
def load(path: str | Path, model: nn.Module | Callable[[], nn.Module] | None = None) -> nn.Module:
    """The network that ``save`` wrote, in eval mode, on the CPU. ``model``: the dense architecture, as a network (which stays as it is) or
    as what makes one; only its structure counts. It may be left out where the folder holds the config.json of a network of transformers.
    The report is ``lrp_report`` of the result. Either of the two networks may be wrapped, in DataParallel or by torch.compile.

    Raises:
        InputError: For a file that is missing, damaged or from a newer version, for another architecture, and where a closure of ``model``
            holds a layer that is to be replaced, which the network would go on with.
    """
    return read(file_to_read(check_path("load", path)), model)


def read(path: Path, model: nn.Module | Callable[[], nn.Module] | None, made_from: str | None = None) -> nn.Module:
    """As ``load``, of a file that ``write`` made from the same.

    Raises:
        InputError: As ``load`` does, and for a file that was made from something else.
        OwnCodeError: Where ``model`` is a function that fails; an InputError as well.
    """
    description, tensors = read_saved(path)
    if description.get("made_from") != made_from and made_from is not None:
        raise InputError(f"load {path}: it was made from something else")
    try:
        model = from_config(path, description.get("config")) if model is None else model
        result = model if isinstance(model, nn.Module) or not callable(model) else model()
    except InputError:
        raise
    except Exception as error:  # whatever a function of the user's raises
        said = f"{type(error).__name__}: {first_line(error)}"
        raise OwnCodeError(f"load {path}: the function that makes the network raised {said}") from error
    if not isinstance(result, nn.Module):
        raise InputError(f"load {path}: model is a {type(result).__name__}, give a network or a function that makes one")
    source = result
    result = duplicate(check_values(result)).cpu().eval()
    other = f"load {path}: the file is for another architecture"
    try:
        description, tensors = renamed(description, tensors, result, path)
        result = _stand_in(result, description.get("stand_ins", {}), other, path)
        restore_narrow(result, description.get("narrow", {}), other)
        result = _restore_layers(result, description, other).eval()
        tensors |= {name: tensors[first] for name, first in description["same"].items() if first in tensors}
        report = _report(description["report"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"load {path}: its description is damaged ({type(error).__name__}: {first_line(error)[:200]})") from error
    if any(isinstance(getattr(module, "_orig_mod", None), Compressed) for module in result.modules()):
        raise InputError(f"load {path}: torch.compile would go on calling the layer that is replaced; give the layer itself")
    replaced = {*description["layers"], *description["folded"], *description.get("stand_ins", {})} - {""}
    check_reach(source, replaced & dict(source.named_modules()).keys(), f"load {path}")  # what a copy's closures hold is the source's
    own = result.state_dict()
    if missing := [name for name in own if name not in tensors]:
        raise InputError(f"{other}: this one has {some(missing)}, which the file lacks")
    if unexpected := [name for name in tensors if name not in own]:
        raise InputError(f"{other}: it has {some(unexpected)}, which this one lacks")
    if wrong := [f"{k} {_by(tensors[k].shape)} instead of {_by(own[k].shape)}" for k in own if tensors[k].shape != own[k].shape]:
        raise InputError(f"{other}: the file holds {some(wrong)}")
    known: dict[Any, str] = {}
    for name, tensor in own.items():
        first = known.setdefault(_place(tensor), name) if tensor.numel() else name
        if first != name and not torch.equal(tensors[first].nan_to_num(), tensors[name].nan_to_num()):
            raise InputError(f"{other}: {first} and {name} are one tensor here and two in the file")
    _cast(result, tensors)
    try:
        load_state(result, tensors)
    except ValueError as error:
        raise InputError(f"{other}: {error}") from error
    try:
        for module in result.modules():
            if isinstance(module, Compressed):
                module.check_loaded()
    except ValueError as error:
        raise InputError(f"load {path}: its description is damaged ({error})") from error
    _freeze(result, description.get("frozen", []), path)
    if report is not None:
        result.lrp_report = report
    return result


def _freeze(model: nn.Module, names: Any, path: Path) -> None:
    """Let these parameters need no gradient.

    Raises:
        InputError: For anything but names of the network's parameters.
    """
    parameters = dict(model.named_parameters())
    if not isinstance(names, list) or any(not isinstance(name, str) or name not in parameters for name in names):
        raise InputError(f"load {path}: its description is damaged (it freezes parameters that there are not)")
    for name in names:
        parameters[name].requires_grad_(False)


def _report(stored: dict[str, Any] | None) -> Report | None:
    if stored is None:
        return None
    report = Report(pd.DataFrame(stored["rows"], columns=COLUMNS))
    report.attrs = dict(stored["totals"])
    return report


def _stand_in(model: nn.Module, named: dict[str, str], other: str, path: Path) -> nn.Module:
    """The network with stand-ins where the file has them.

    Raises:
        InputError: For a kind that this version does not know; beginning with ``other``, where the network has no such module.
    """
    modules = dict(model.named_modules())
    for name, kind in named.items():
        if kind not in NAMED:
            raise InputError(f"load {path}: {name} stands for a {str(kind)[:40]}, and this version knows {', '.join(NAMED)}")
        if name not in modules or not NAMED[kind].stands_for(modules[name]):
            raise InputError(f"{other}: it has a {kind} {name}, this one {_what(modules.get(name))}")
        model = stand_in(model, name, NAMED[kind])
    return model


def _restore_layers(model: nn.Module, description: dict[str, Any], other: str) -> nn.Module:
    """The network with low-rank layers and folded batch norms where the description has them.

    Raises:
        InputError: Beginning with ``other``, where the description does not fit the network.
        ValueError: For a form that no version that writes this format knows.
    """
    modules: dict[str, Any] = dict(model.named_modules())
    folded = description["folded"]
    biased = description.get("biased", [])
    for name in {*folded.values(), *biased}:  # a layer has a bias once a batch norm is folded into it, or compensation gave it one
        layer = modules.get(name)
        kind = find_kind(layer)
        if layer is not None and kind is not None and getattr(layer, "bias", None) is None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(kind.rows(layer)))
    for name, layer in description["layers"].items():
        dense = modules.get(name)
        kind = find_kind(dense)
        if layer.get("form", MATRIX) not in {form.form for each in KINDS for form in each.forms}:
            raise ValueError(f"layer {name} has a form {str(layer['form'])[:40]}")
        form = None if dense is None or kind is None else kind.form(dense, layer.get("form", MATRIX))
        if dense is None or kind is None or form is None or form.dense.__name__ != layer["type"]:
            raise InputError(f"{other}: it has a {layer['type']} {name}, this one {_what(dense)}")
        own = _options(dense, form.attributes) | {"bias": getattr(dense, "bias", None) is not None}
        theirs = layer["options"] | {"bias": layer["bias"]}
        if differing := [f"{key}={theirs.get(key)} instead of {value}" for key, value in own.items() if theirs.get(key) != value]:
            raise InputError(f"{other}: its layer {name} has {some(differing)}")
        matrix = replace(kind.matrix(name, dense), weight=form.matrix_of(dense))
        model = replace_layer(model, name, form(dense, form.held(matrix, layer)))
    tie(model, description["layers"], modules)
    for name in biased:
        layer: Any = model.get_submodule(name)
        layer.added_bias = True
    for name, into in folded.items():
        if not hasattr(modules.get(name), "running_mean"):
            raise InputError(f"{other}: it has a batch norm {name}, this one {_what(modules.get(name))}")
        if find_kind(modules.get(into)) is None:
            raise InputError(f"{other}: it has a layer {into}, this one {_what(modules.get(into))}")
        model = replace_layer(model, name, Folded(into, kind_of(modules[into]).feature_dim == -1))
    return model


def _options(layer: nn.Module, names: Sequence[str]) -> dict[str, Any]:
    """The options of a layer as JSON has them: tuples are lists."""
    values = {name: getattr(layer, name) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@torch.no_grad()
def _cast(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give every parameter and buffer the precision in which it was saved; buffers that are not saved follow, if it is one."""
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(kinds) == 1:
        model.to(kinds.pop())
    for module_name, module in model.named_modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                stored = tensors.get(f"{module_name}.{name}" if module_name else name)
                if value is not None and stored is not None and value.dtype != stored.dtype:
                    value.data = value.data.to(stored.dtype)


def _place(tensor: Tensor) -> Any:
    """Equal for two names of one tensor."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _what(module: nn.Module | None) -> str:
    return "lacks it" if module is None else f"a {type(module).__name__}"


def _by(shape: Any) -> str:
    return " x ".join(str(n) for n in shape) or "a single number"
