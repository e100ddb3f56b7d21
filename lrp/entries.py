"""Files that say what they were made from and carry a SHA-256 of what they hold: states, entries of a cache, saved networks.

Tensors are safetensors, whose metadata hold one text, a description in JSON under "lrp"; its ``sha256`` covers the description and
the names, types, shapes and bytes of all tensors. A cache and a state name what they were made from as ``made_from``.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from lrp.errors import first_line
from lrp.files import sha256, write_text, write_whole

log = logging.getLogger(__name__)

DEEPEST = 100  # lists and mappings in each other; a description needs ten
LARGEST = 2**26  # bytes of a description: a network of a thousand layers with a hundred blocks each has a tenth of it


class Unusable(ValueError):
    """Why a file cannot be used, in a few words."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> None:
    """Write tensors and their description, whole or not at all; equal content gives equal bytes."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    plain = json.loads(json.dumps(described))  # as it will be read: numbers as keys are texts then
    text = json.dumps({**plain, "sha256": _checksum(plain, held)})
    write_whole(path, lambda file: file.write_bytes(to_bytes(held, {"lrp": text})))


def read_tensors(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """The description, None where the file has none, and the tensors, on the CPU. A description without ``sha256`` is not checked.

    Raises:
        Unusable: For a file that is damaged, and for a description that is not plain: nested deeply, of many megabytes, or with
            characters that are not printed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("lrp")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise Unusable(f"it is damaged or not a safetensors file ({first_line(error)})") from error
    if text is None:
        return None, tensors
    described = _parse(text)
    if problem := not_plain([described, list(tensors)]):
        raise Unusable(f"it is damaged: its description {problem}")
    if "sha256" in described:
        found = described.pop("sha256")
        if found != _checksum(described, tensors):
            raise Unusable("it is damaged: its checksum does not fit what it holds")
    return described, tensors


def _parse(text: str) -> dict[str, Any]:
    if len(text) > LARGEST:
        raise Unusable(f"it is damaged: its description is of {len(text)} characters, more than {LARGEST}")
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"it is damaged or not a safetensors file of lrp: its description is not JSON ({first_line(error)})") from error
    if not isinstance(described, dict):
        raise Unusable("it is damaged: its description is not a mapping")
    return described


def not_plain(value: Any) -> str | None:
    """What is wrong with parsed JSON where it is nested deeply or has texts with control characters; None: nothing."""
    waiting = [(value, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > DEEPEST:
            return f"is nested in more than {DEEPEST} levels"
        if isinstance(node, str) and not node.isprintable() and any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in node):
            return "holds control characters"
        if isinstance(node, dict):
            waiting += [(part, depth + 1) for pair in node.items() for part in pair]
        elif isinstance(node, list):
            waiting += [(part, depth + 1) for part in node]
    return None


def _checksum(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return sha256([json.dumps(described, sort_keys=True), *(part for name in sorted(tensors) for part in (name, tensors[name]))])


def write_entry(path: Path, tensors: Mapping[str, Tensor], made_from: str) -> None:
    """Write tensors that were computed from what ``made_from`` stands for: an entry of a cache."""
    write_tensors(path, tensors, {"made_from": made_from})


def read_entry(path: Path, made_from: str) -> dict[str, Tensor] | None:
    """The tensors of an entry; None where there is none, or where it is damaged or was made from something else, which the log says."""
    found = _read(path, made_from)
    return None if found is None else found[1]


def write_state(path: Path, state: Any, made_from: str) -> None:
    """Write an unfinished state: mappings with texts or integers as keys, and lists, of tensors, numbers, texts and None."""
    tensors: dict[str, Tensor] = {}
    packed = _pack(state, tensors)
    write_tensors(path, tensors, {"made_from": made_from, "state": packed})


def read_state(path: Path, made_from: str) -> Any:
    """The state in a file, its tensors on the CPU; None where there is none, or where it cannot be used, which the log says."""
    found = _read(path, made_from)
    if found is None:
        return None
    described, tensors = found
    try:
        return _unpack(described["state"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        _tell(path, f"it is damaged: {first_line(error)}")
        return None


def write_values(path: Path, values: Mapping[str, Any], made_from: str) -> None:
    """Write a few numbers as JSON, with what they were made from and a checksum: an entry of a cache."""
    plain = json.loads(json.dumps({**values, "made_from": made_from}))
    write_text(path, json.dumps({**plain, "sha256": _checksum(plain, {})}))


def read_values(path: Path, made_from: str) -> dict[str, Any] | None:
    """What ``write_values`` wrote; None where there is none, or where it cannot be used, which the log says."""
    if not path.exists():
        return None
    try:
        values = _parse(path.read_text(encoding="utf-8"))
        found = values.pop("sha256", None)
        _check(found is not None, found == _checksum(values, {}), values.pop("made_from", None) == made_from)
    except (Unusable, OSError, ValueError) as error:
        _tell(path, first_line(error))
        return None
    return values


def _read(path: Path, made_from: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file:
            start = file.read(2)
        if start == b"PK":  # states were files of torch.save, which are zip archives, until December 2026
            raise Unusable("an earlier version of lrp wrote it, without a checksum")
        described, tensors = read_tensors(path)
        given = described or {}
        _check("made_from" in given, True, given.get("made_from") == made_from)
        return given, tensors
    except (Unusable, OSError) as error:
        _tell(path, first_line(error))
        return None


def _check(has_checksum: bool, fits: bool, same: bool) -> None:
    if not has_checksum:
        raise Unusable("it has no checksum, as those of earlier versions of lrp")
    if not fits:
        raise Unusable("it is damaged: its checksum does not fit what it holds")
    if not same:
        raise Unusable("it was made with other settings, weights or images")


def _tell(path: Path, reason: str) -> None:
    log.warning("%s is not used and is made again: %s", path, reason)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Plain JSON for a state; its tensors are put aside.

    Raises:
        TypeError: For anything that is not plain.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()  # safetensors refuses tensors that are one
        last = value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)
        return {"tensor": name, "channels_last": last}
    if isinstance(value, Mapping):
        return {"mapping": [[key, _pack(part, tensors)] for key, part in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_pack(part, tensors) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a state holds no {type(value).__name__}")


def _unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(packed, list):
        return [_unpack(part, tensors) for part in packed]
    if not isinstance(packed, dict):
        return packed
    if "mapping" in packed:
        return {key: _unpack(part, tensors) for key, part in packed["mapping"]}
    tensor = tensors[packed["tensor"]]
    return tensor.contiguous(memory_format=torch.channels_last) if packed["channels_last"] else tensor
