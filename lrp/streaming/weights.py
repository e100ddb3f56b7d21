"""The weights of a network in safetensors files, of which a part is read at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lrp.errors import InputError, first_line, some
from lrp.files import check_path, sha256, why_unreadable

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


class Weights:
    """Tensors by name, in one .safetensors file or in several that an index names, as transformers writes them.

    Attributes:
        files: The file that holds each tensor.
    """

    def __init__(self, path: str | Path) -> None:
        """``path``: a .safetensors file, an index (.index.json), or a folder that holds one of them.

        Raises:
            InputError: Where they cannot be read.
        """
        place = check_path("weights", path)
        if place.is_dir():
            place = next((place / name for name in (INDEX, WHOLE) if (place / name).exists()), place / WHOLE)
        if reason := why_unreadable(place):
            raise InputError("weights", place, reason)
        self.files: dict[str, Path] = {}
        for file in _shards(place) if place.suffix == ".json" else [place]:
            if reason := why_unreadable(file):
                raise InputError("weights", file, reason)
            try:
                with safe_open(file, framework="pt") as held:
                    self.files |= dict.fromkeys(held.keys(), file)
            except (SafetensorError, OSError) as error:
                raise InputError("weights", file, f"it is damaged or not a safetensors file ({first_line(error)})") from error

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """The files' names and sizes: copies of the same have the same."""
        return sorted({(file.name, file.stat().st_size) for file in self.files.values()})

    @property
    def identity(self) -> str:
        """A hash of the files' names, sizes and times: their bytes may be more than can be read in a reasonable time."""
        found = sorted({file: file.stat() for file in self.files.values()}.items())
        return sha256([f"{file.name} {stat.st_size} {stat.st_mtime_ns}" for file, stat in found])

    def read(self, name: str) -> Tensor:
        """One tensor."""
        with safe_open(self.files[name], framework="pt") as held:
            return held.get_tensor(name)


def _shards(index: Path) -> list[Path]:
    """The files of an index, which lie beside it.

    Raises:
        InputError: For an index that is not one.
    """
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = sorted({str(name) for name in names})
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError("weights", index, f"is no index of safetensors files ({first_line(error)})") from error
    if outside := [name for name in files if Path(name).name != name]:
        raise InputError("weights", index, f"it names {some(outside)}, which does not lie beside it")
    return [index.parent / name for name in files]


def check_names(model: nn.Module, weights: Weights) -> dict[str, str]:
    """Of each parameter and each buffer that is saved the name under which the files hold it: its own, or that of another that is the same
    tensor.

    Raises:
        InputError: Where they lack one.
    """
    known, names = dict[int, str](), dict[str, str]()
    own = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    for name, value in own.items():
        if name in weights.files:
            known.setdefault(id(value), name)
    for name in model.state_dict():
        names[name] = name if name in weights.files else known.get(id(own[name]), "")
    if missing := [name for name, held in names.items() if not held]:
        raise InputError("weights", next(iter(weights.files.values())).parent, f"the files lack {some(missing)}, which the network has")
    return names


def fill(module: nn.Module, prefix: str, weights: Weights, names: Mapping[str, str]) -> None:
    """Give the parameters and buffers of a module (``prefix``: its name and a dot, or nothing) their values.

    Raises:
        InputError: For a tensor of another shape.
    """
    held = dict[str, Tensor]()
    for name, value in module.state_dict().items():
        found = weights.read(names[prefix + name])
        if found.shape != value.shape:
            raise InputError(f"weights: {prefix}{name} is {tuple(found.shape)} there and {tuple(value.shape)} in the network")
        held[name] = found.to(value.dtype)
    module.load_state_dict(held, assign=True)


def empty(module: nn.Module) -> None:
    """Let go of the values of all parameters."""
    for each in module.modules():
        empty_own(each)


def empty_own(module: nn.Module) -> None:
    """The same of the parameters that are a module's own."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)


def fill_rest(model: nn.Module, names: Mapping[str, str], weights: Weights, option: str) -> None:
    """Give these parameters and buffers of a network their values. Parameters that are one stay one.

    ``names``: of each the name under which the files hold it; ``option``: what gave the files.

    Raises:
        InputError: For a tensor of another shape.
    """
    known: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # by what was there, which is held so that no other gets its place
    for name, held in names.items():
        place, _, own = name.rpartition(".")
        module = model.get_submodule(place)
        before: Any = module._parameters.get(own, module._buffers.get(own))
        if id(before) in known:
            module._parameters[own] = known[id(before)][1]
            continue
        value = weights.read(held)
        if value.shape != before.shape:
            raise InputError(f"{option}: {name} is {tuple(value.shape)} there and {tuple(before.shape)} in the network")
        value = value.to(before.dtype)
        if isinstance(before, nn.Parameter):
            parameter = nn.Parameter(value, requires_grad=before.requires_grad)
            module._parameters[own], known[id(before)] = parameter, (before, parameter)
        else:
            module._buffers[own] = value
