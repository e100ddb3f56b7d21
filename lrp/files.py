"""Files that are either whole or absent, hashes of what they hold, and settings as they are written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrp.errors import InputError, first_line

KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_TEMPORARY = re.compile(r"\..*-[a-z0-9_]{8}(\.\w+)?")  # as tempfile names them
_NO_ROOM = {  # what libraries say of a disk that is full, whatever they raise
    errno.ENOSPC: ("no space left", "os error 28", "file write failed", "unexpected pos", "enforce fail at inline_container"),
    errno.EFBIG: ("file too large", "os error 27"),
    errno.EDQUOT: ("quota exceeded", "os error 122"),
}


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


def check_path(option: str, path: object) -> Path:
    """A path, ~ being the user's folder.

    Raises:
        InputError: For what is no path.
    """
    if not isinstance(path, (str, Path)):
        raise InputError(option, path, "give the path of a file")
    try:
        place = Path(path).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            place.stat()
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a user who is not known, or NUL
        raise InputError(option, path, f"is no path of a file ({getattr(error, 'strerror', None) or first_line(error)})") from error
    return place


def check_file(option: str, path: object) -> Path:
    """The path of a file to write, which need not be there.

    Raises:
        InputError: For anything else, for a folder and for a path below a file.
    """
    place = check_path(option, path)
    if place.is_dir():
        raise InputError(option, path, "is a folder; give the name of a file in it")
    below = next((str(parent) for parent in place.parents if parent.is_file()), None)
    if below:
        raise InputError(option, path, f"{below} is a file, not a folder")
    return place


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: a kill leaves the old file or the new one.

    Raises:
        OSError: Naming ``path``, where there is no room or the folder cannot be written, whatever ``write`` raises for that.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        number = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno or errno.EIO  # a file where the folder would be
        raise OSError(number, os.strerror(number), str(path)) from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes the file private; a result is an ordinary file
        os.replace(temporary, path)
    except Exception as error:
        reason = _no_room(error)
        if reason is not None:
            raise OSError(reason, os.strerror(reason), str(path)) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _no_room(error: BaseException) -> int | None:
    """The number of the error, where it or what caused it says that a disk is full."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            return cause.errno
        said = str(cause).lower()
        for number, words in _NO_ROOM.items():
            if any(word in said for word in words):
                return number
        cause = cause.__cause__ or cause.__context__
    return None


def remove_leftovers(folder: Path, stem: str | None = None) -> None:
    """Remove the temporary files that a killed ``write_whole`` left in a folder, of files of this ``stem`` or of any.

    Only for a folder, or a file, that nobody else writes now.
    """
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if _TEMPORARY.fullmatch(file.name) and (stem is None or file.name.startswith(f".{stem}-")) and file.is_file():
            file.unlink(missing_ok=True)


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


def own_sources(objects: Iterable[object]) -> list[str]:
    """The source code of the classes of these objects that are neither torch's nor lrp's: what they compute may change with it."""
    return class_sources({type(each) for each in objects if type(each).__module__.split(".")[0] not in ("torch", "lrp", "builtins")})


def flatten(settings: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Nested settings in one level, their names joined: calibration.seed."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat.update(flatten(value, separator, f"{prefix}{key}{separator}") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
