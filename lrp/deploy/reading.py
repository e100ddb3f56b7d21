"""What a file of ``lrp.save`` holds, by the names that a network has for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lrp import __version__
from lrp.errors import InputError
from lrp.files import why_unreadable
from lrp.model.names import AVERAGED, WRAPPERS, without_wrappers

log = logging.getLogger(__name__)

FORMAT = 1  # raised when a file is written that this version's ``load`` would misread


def read_saved(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a file that ``lrp.save`` wrote.

    Raises:
        InputError: For a file that is missing, damaged or from a newer version.
    """
    if reason := why_unreadable(path):
        raise InputError(f"load {path}: {reason}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("lrp")
            description = None if text is None else json.loads(text)
            if description is not None and description["format"] > FORMAT:
                raise InputError(
                    f"load {path}: it was written by lrp {description['version']} in format {description['format']}; this is lrp "
                    f"{__version__}, which reads up to format {FORMAT}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"load {path}: it is damaged or not a safetensors file ({str(error).splitlines()[0]})") from error
    if description is None:
        raise InputError(f"load {path}: it was not written by lrp.save (it lacks the description)")
    return description, tensors


def renamed(
    description: Mapping[str, Any], tensors: Mapping[str, Tensor], model: nn.Module, path: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Both by the names that ``model`` has for them: one of the two networks may have been wrapped, in DataParallel or by torch.compile."""
    own = dict(model.named_modules())
    inner = {without_wrappers(name): name for name in sorted(own, key=len)}  # of a wrapper and what it holds the latter

    def wrapped(name: str) -> str | None:
        """The name of what a module wraps, if that is all that it holds."""
        held = [*own[name]._modules, *own[name]._parameters, *own[name]._buffers]
        return ".".join(filter(None, (name, *held))) if len(held) == 1 and held[0] in WRAPPERS else None

    def place(name: str) -> str:
        parts = name.split(".")
        for end in range(len(parts), -1, -1):
            begin = ".".join(parts[:end])
            found = begin if begin in own else inner.get(without_wrappers(begin))
            if found is not None:
                while (held := wrapped(found)) is not None:
                    found = held
                return ".".join(filter(None, (found, *parts[end:])))
        return name

    if AVERAGED not in model.state_dict():
        tensors = {name: tensor for name, tensor in tensors.items() if name != AVERAGED}
    new = {place(name): tensor for name, tensor in tensors.items()}
    places = {
        "layers": {place(name): layer for name, layer in description["layers"].items()},
        "folded": {place(name): place(into) for name, into in description["folded"].items()},
        "biased": [place(name) for name in description.get("biased", [])],
        "same": {place(name): place(first) for name, first in description["same"].items()},
    }
    if len(new) < len(tensors) or (list(new) == list(tensors) and all(places[key] == description.get(key, []) for key in places)):
        return dict(description), dict(tensors)
    log.info("load %s: its network, or this one, was wrapped; names are compared without that", path)
    return {**description, **places}, new
