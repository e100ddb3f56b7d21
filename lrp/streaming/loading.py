"""What ``compress_blocks`` wrote, as a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lrp.deploy.saving import load
from lrp.errors import InputError, first_line, some
from lrp.files import check_path, sha256_file, why_unreadable
from lrp.layer.build import replace_layer
from lrp.model.unfilled import empty_parameters
from lrp.streaming.naming import within
from lrp.streaming.weights import Weights, fill_rest

INDEX, REST = "lrp.blocks.json", "rest.safetensors"


def load_blocks(folder: str | Path, model: Callable[[], nn.Module]) -> nn.Module:
    """The compressed network that ``compress_blocks`` wrote to a folder, in eval mode, on the CPU. At no time does it hold more than one
    block of the dense network. ``model`` makes the dense architecture.

    Raises:
        InputError: For a folder that holds none, and where what it holds does not fit the architecture.
    """
    place = check_path("folder", folder)
    if not callable(model) or isinstance(model, nn.Module):
        raise InputError("model", type(model).__name__, "give a function that makes the network")
    index, numbers = _index(place), torch.Generator().manual_seed(0)
    with empty_parameters():
        result = model().eval()
    _check(place / index["rest"], index)
    for name, file in index["blocks"].items():
        _check(place / file, index)
        block = _module(result, name, place)
        for module in block.modules():
            for own, parameter in module._parameters.items():
                if parameter is not None:  # numbers, since stand-ins look at what a block computes
                    value = torch.empty_like(parameter, device="cpu")
                    value = value.normal_(std=0.02, generator=numbers) if value.is_floating_point() else value.zero_()
                    module._parameters[own] = nn.Parameter(value, parameter.requires_grad)
        result = replace_layer(result, name, load(place / file, model=block))
    rest, same = Weights(place / index["rest"]), index["same"]
    names = {name: name for name in rest.files} | same
    if not rest.files.keys() >= {*names.values()}:
        raise InputError("folder", place, f"{INDEX} is damaged: it names what {index['rest']} lacks")
    own = [name for name in result.state_dict() if not within(name, list(index["blocks"]))]
    if missing := [name for name in own if name not in names]:
        raise InputError("folder", place, f"it is for another architecture: it lacks {some(missing)}")
    if unexpected := [name for name in names if name not in own]:
        raise InputError("folder", place, f"it is for another architecture: this one lacks {some(unexpected)}")
    fill_rest(result, names, rest, f"folder={place}")
    return result.eval()


def _module(model: nn.Module, name: str, place: Path) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise InputError("folder", place, f"it is for another architecture: this one has no {name}") from error


def _check(file: Path, index: dict[str, Any]) -> None:
    """That a file is the one that was written.

    Raises:
        InputError: Where it is not.
    """
    if reason := why_unreadable(file):
        raise InputError("folder", file.parent, f"{file.name}: {reason}")
    if sha256_file(file) != index["sha256"].get(file.name):
        raise InputError("folder", file.parent, f"{file.name} is damaged, or not the file that was written with {INDEX}")


def _index(place: Path) -> dict[str, Any]:
    """What the index of a folder says.

    Raises:
        InputError: Where there is none, or it is damaged.
    """
    file = place / INDEX
    if reason := why_unreadable(file):
        raise InputError("folder", place, f"{INDEX}: {reason}")
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        files = [*index["blocks"].values(), index["rest"]]
        fits = all(isinstance(name, str) and Path(name).name == name and name != ".." for name in files) and isinstance(index["same"], dict)
        fits = fits and isinstance(index["sha256"], dict)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError("folder", place, f"{INDEX} is damaged ({first_line(error)})") from error
    if not fits:
        raise InputError("folder", place, f"{INDEX} is damaged")
    return index
