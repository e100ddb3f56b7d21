"""Files of weights, from wherever they come: what they hold, without running anything that they hold."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lrp.errors import InputError, first_line, some
from lrp.files import why_unreadable

DEEPEST = 4  # dictionaries in dictionaries: {"checkpoint": {"model": {"state_dict": ...}}}
MOST_PACKED = 100  # times smaller than what it holds may a file be
ALONE = "save the weights alone: torch.save(network.state_dict(), file)"


def read_checkpoint(path: Path) -> Any:
    """What a .safetensors file holds, or a ``torch.save`` file, which is read with weights_only=True.

    Raises:
        InputError: For a file that is not there, is damaged or of another kind, or holds anything that code would have to make.
    """
    if reason := why_unreadable(path):
        raise InputError("model.checkpoint", path, reason)
    with open(path, "rb") as file:
        start = file.read(9)
    if not start:
        raise InputError("model.checkpoint", path, "the file is empty")
    if start[8:] == b"{" or (path.suffix == ".safetensors" and not start.startswith(b"PK")):
        try:
            return load_file(path)
        except Exception as error:  # whatever is raised for a damaged file
            raise InputError("model.checkpoint", path, f"it cannot be read as a safetensors file ({plain(first_line(error))})") from error
    if reason := _archive_problem(path):
        raise InputError("model.checkpoint", path, reason)
    try:
        with open(path, "rb") as file:  # of a path torch looks at the suffix, too
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is raised for a damaged file
        if objects := _objects(path, str(error)):
            reason = f"it holds {some_of(objects)} besides tensors, which is not read (weights_only=True); {ALONE}"
        else:
            reason = f"it is damaged, or not a file of torch.save or safetensors ({_reason(error)})"
        raise InputError("model.checkpoint", path, reason) from error


def dictionaries(held: Any) -> dict[str, Mapping[str, Tensor]]:
    """The tensors that have names, by where in a checkpoint they are: "" for the whole, "model.state_dict" for nested ones."""
    return dict(_dictionaries(held, "", 0, set()))


def _dictionaries(held: Any, where: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    if id(held) in seen or depth > DEEPEST:
        return
    seen.add(id(held))
    items = list(held.items() if isinstance(held, Mapping) else enumerate(held))
    tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield where, held if len(tensors) == len(items) else tensors  # whole, with the versions of its modules
    for key, value in items:
        if isinstance(value, Mapping | list | tuple):
            yield from _dictionaries(value, f"{where}.{key}" if where else str(key), depth + 1, seen)


def contents(held: Any) -> str:
    """What a checkpoint holds, in words: "a dictionary of epoch, args"."""
    if not isinstance(held, Mapping):
        return f"an object of the type {type(held).__name__}"
    return f"a dictionary of {some_of(list(held))}" if held else "an empty dictionary"


def some_of(names: Sequence[object]) -> str:
    """The first of some names, which are a file's: one line without control characters."""
    return some([plain(str(name)) for name in names])


def plain(text: str) -> str:
    """A text of a file's making, without control characters and of bounded length."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _archive_problem(path: Path) -> str | None:
    """Why a file should not be given to torch.load, which would warn at length of torch.jit.save's and unpack any other."""
    try:
        with zipfile.ZipFile(path) as file:
            records = file.infolist()
    except Exception:  # not a zip file, or a damaged one: torch.load says more
        return None
    if any(record.filename.endswith("/constants.pkl") for record in records):
        return f"it holds a TorchScript program, which is not read; {ALONE}"
    size, unpacked = path.stat().st_size, sum(record.file_size for record in records)
    if unpacked > MOST_PACKED * size:  # torch.save itself compresses nothing
        return f"its {size:,} bytes are compressed, and would become {unpacked:,}; unpack it and save it again"
    return None


def _objects(path: Path, text: str) -> list[str]:
    """The classes and functions that a file asks for beside tensors; of the older format the first that torch's error names."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the older format, or a damaged file
        found = re.search(r"GLOBAL (\S+)", text)
        return [found[1]] if found else []


def _reason(error: Exception) -> str:
    """What torch says, without its advice to load with weights_only=False."""
    found = re.search(r"WeightsUnpickler error: ([^\n]*)", str(error))
    said = found[1] if found else first_line(error)
    if isinstance(error, LookupError) or "weights_only" in said:  # the text of a LookupError is what was looked up
        return "it does not begin as one"
    return plain(said.partition(". ")[0])
