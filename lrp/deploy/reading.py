"""What a file of ``lrp.save`` holds, by the names that a network has for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lrp import __version__
from lrp.entries import Unusable, read_tensors
from lrp.errors import InputError
from lrp.files import why_unreadable
from lrp.model.names import AVERAGED, WRAPPERS, without_wrappers

log = logging.getLogger(__name__)

MATRIX = "matrix"  # the form of a layer whose entry names none
FROZEN = 2  # the first format that says which parameters need no gradient
STANDING = 3  # the first that says for which modules others stand in
TIED = 4  # the first that says which layers hold the same factors
CONFIGURED = 4  # the first that holds the fingerprint of a config.json
NARROW = 5  # the first that says which layers are narrower than their architecture has them
FORMAT = 5  # raised when a file is written that this version's ``load`` would misread
# Others may be one of them, damaged.
_ENTRIES = ("format", "version", "layers", "folded", "biased", "same", "report", "made_from", "frozen", "stand_ins", "config", "narrow")


def read_saved(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a file that ``lrp.save`` wrote.

    Raises:
        InputError: For a file that is missing, damaged or from a newer version.
    """
    if reason := why_unreadable(path):
        raise InputError(f"load {path}: {reason}")
    try:
        description, tensors = read_tensors(path)
    except Unusable as error:
        raise InputError(f"load {path}: {error}") from error
    if description is None:
        raise InputError(f"load {path}: it was not written by lrp.save (it lacks the description)")
    number = description.get("format")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"load {path}: its description is damaged (it names no format)")
    if number > FORMAT:
        raise InputError(
            f"load {path}: it was written by lrp {str(description.get('version'))[:40]} in format {str(number)[:10]}; this is lrp "
            f"{__version__}, which reads up to format {FORMAT}"
        )
    if unknown := [name for name in description if name not in _ENTRIES]:
        raise InputError(f"load {path}: its description is damaged (it has an entry {unknown[0][:40]})")
    return description, tensors


def _placed(layer: dict[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    return {**layer, "tied": place(layer["tied"])} if "tied" in layer else layer


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

    averaged = model.state_dict().get(AVERAGED)
    if averaged is not None:
        tensors = {AVERAGED: averaged, **tensors}
    else:
        tensors = {name: tensor for name, tensor in tensors.items() if name != AVERAGED}
    new = {place(name): tensor for name, tensor in tensors.items()}
    places = {
        "layers": {place(name): _placed(layer, place) for name, layer in description["layers"].items()},
        "folded": {place(name): place(into) for name, into in description["folded"].items()},
        "biased": [place(name) for name in description.get("biased", [])],
        "same": {place(name): place(first) for name, first in description["same"].items()},
        "frozen": [place(name) for name in description.get("frozen", [])],
        "stand_ins": {place(name): kind for name, kind in description.get("stand_ins", {}).items()},
        "narrow": {place(name): sizes for name, sizes in description.get("narrow", {}).items()},
    }
    if len(new) < len(tensors) or (list(new) == list(tensors) and all(places[key] == description.get(key, places[key]) for key in places)):
        return dict(description), dict(tensors)
    log.info("load %s: its network, or this one, was wrapped; names are compared without that", path)
    return {**description, **places}, new
