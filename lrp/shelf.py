"""Tensors that lie in a file of the system's temporary folder until they are read: what of all layers together would not fit beside the
network."""

from __future__ import annotations

import copy
import itertools
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any, TypeVar

import torch
from torch import Tensor

KEPT = 2**20  # bytes that a shelf holds in memory before it uses its file
Made = TypeVar("Made")


class Shelf:
    """Takes tensors and gives handles that read them back bit for bit. The first ``kept`` bytes stay in memory; so does everything where
    no file can be written. The file has no name: nothing is left of it once no handle is, however the process ends.
    """

    def __init__(self, kept: int | None = None) -> None:
        """``kept``: bytes; None: 1 MiB."""
        self._kept, self._end = KEPT if kept is None else kept, 0
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def put(self, value: Tensor) -> Any:
        """A handle for a tensor, which is not to be written into afterwards; the tensor itself where it stays in memory."""
        size = value.numel() * value.element_size()
        turned = value.dim() > 1 and not value.is_contiguous() and value.mT.is_contiguous()  # products read its order
        if not size or value.device.type != "cpu" or value.requires_grad:
            return value
        if size <= self._kept:
            self._kept -= size
            return value
        try:
            self._file = self._file or tempfile.TemporaryFile(prefix="lrp-", buffering=0)
            self._file.seek(self._end)
            left = _bytes((value.mT if turned else value).contiguous())
            while left:
                left = left[self._file.write(left) :]
        except OSError:  # no folder for temporary files, or a full disk
            self._kept = 2**63
            return value
        self._end += size
        return Stored(self._file, self._end - size, value.mT if turned else value, turned, self._lock)


def _bytes(value: Tensor) -> memoryview:
    numbers: Any = value.view(-1).view(torch.uint8).numpy()
    return memoryview(numbers)


class Stored:
    """A tensor in the file of a shelf."""

    def __init__(self, file: IO[bytes], start: int, like: Tensor, turned: bool, lock: threading.Lock) -> None:
        self._file, self._start, self._turned, self._lock = file, start, turned, lock
        self._shape, self._dtype = like.shape, like.dtype

    def read(self) -> Tensor:
        """The tensor, anew at each call.

        Raises:
            OSError: Where the file can no longer be read.
        """
        value = torch.empty(self._shape, dtype=self._dtype)
        left = _bytes(value)
        with self._lock:
            self._file.seek(self._start)
            while left:
                got = self._file.readinto(left)  # type: ignore[attr-defined]
                if not got:
                    raise OSError("a temporary file was cut short")
                left = left[got:]
        return value.mT if self._turned else value

    def __len__(self) -> int:
        return self._shape[1 if self._turned and len(self._shape) == 2 else 0]

    def __deepcopy__(self, memo: Any) -> Stored:
        return self


class Joined:
    """Tensors, or handles of them, one below the other."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = parts

    def read(self) -> Tensor:
        """All of them as one tensor, anew at each call; one part at a time is held besides."""
        parts = map(read, self._parts)
        first = next(parts)
        rows = sum(len(part) for part in self._parts)
        result = first.new_empty(rows, *first.shape[1:])
        at = 0
        for part in itertools.chain([first], parts):
            result[at : at + len(part)] = part
            at += len(part)
        return result


def joined(parts: Sequence[Any]) -> Any:
    """Tensors and handles one below the other: a tensor where all of them are tensors, or a handle."""
    return torch.cat([*parts]) if all(isinstance(part, Tensor) for part in parts) else Joined(parts)


class Turned:
    """The transpose of what a handle gives."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def read(self) -> Tensor:
        """The tensor, anew at each call."""
        return self._handle.read().mT


def read(value: Any) -> Any:
    """What a handle gives; anything else as it is."""
    return value.read() if isinstance(value, Stored | Joined | Turned) else value


def transposed(value: Any) -> Any:
    """The transpose of a tensor, or a handle of it."""
    return value.mT if isinstance(value, Tensor) else Turned(value)


def changed(value: Made, /, **fields: Any) -> Made:
    """A copy of a dataclass with other values in some fields; what the others have in a file stays there (``dataclasses.replace`` would
    read it)."""
    result = copy.copy(value)
    vars(result).update(fields)
    return result


def handle_of(value: Any, name: str) -> Any:
    """What a field holds: a tensor, or a handle that has not been read."""
    return vars(value)[name]


class _Shelved:
    """A field whose value may be a handle of a shelf, which is read at each access."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return read(vars(instance)[self._name])

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self._name] = value


def shelved(*names: str) -> Callable[[type[Made]], type[Made]]:
    """Of a dataclass these fields take handles of a shelf as well, and give tensors."""

    def decorated(made: type[Made]) -> type[Made]:
        for name in names:
            setattr(made, name, _Shelved(name))
        return made

    return decorated
