"""Files that are either whole or absent, hashes of what they hold, and settings as they are written."""

from __future__ import annotations

import hashlib
import inspect
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def why_unreadable(path: Path) -> str | None:
    """Why a path is no file whose bytes can be read, in words that end a sentence; None where it is one.

    To be asked before a file of somebody else's is opened: opening a named pipe waits for ever, and a device has no end.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return f"it is {next((kind for fits, kind in KINDS if fits(mode)), 'a device')}, not a file"
        with open(path, "rb") as file:
            start = file.read(len(LFS_POINTER))
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        return f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    return "it is a Git LFS pointer in place of the file; run git lfs pull" if start == LFS_POINTER else None


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes the file private; a result is an ordinary file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"))


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(parts: Iterable[Tensor | str]) -> str:
    """Hash of tensors (dtype, shape and bytes) and strings, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            data = part.detach().cpu().contiguous()
            digest.update(f"{data.dtype}{tuple(data.shape)}".encode())
            digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def class_sources(classes: Iterable[type]) -> list[str]:
    """The source code of these classes, each once, by name; of one made in an interpreter the name has to do."""
    texts = []
    for kind in sorted(set(classes), key=lambda kind: kind.__qualname__):
        try:
            texts.append(inspect.getsource(kind))
        except (OSError, TypeError):
            texts.append(kind.__qualname__)
    return texts


def flatten(settings: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Nested settings in one level, their names joined: calibration.seed."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(flatten(value, separator, f"{prefix}{key}{separator}") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
