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
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrp.errors import InputError, first_line
from lrp.locks import is_running, neighbourhood

KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_TEMPORARY = re.compile(r"\..*?(-(?P<where>[0-9a-f]{8})-(?P<process>\d+))?-[a-z0-9_]{8}(\.\w+)?")  # as write_whole names them
_ABANDONED = 86400  # seconds after which a temporary file of another machine is taken for one of a process that was killed
_TRIES = 5
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

    Where another process removes the folder meanwhile, as one does that has finished the same work, it is made again.

    Raises:
        OSError: Naming ``path``, where there is no room or the folder cannot be written, whatever ``write`` raises for that.
    """
    for left in reversed(range(_TRIES)):
        try:
            temporary = _temporary(path)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and left:
                continue
            number = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno or errno.EIO  # a file where the folder would be
            raise OSError(number, os.strerror(number), str(path)) from error
        try:
            write(temporary)
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes the file private; a result is an ordinary file
            os.replace(temporary, path)
            return
        except Exception as error:
            if left and not temporary.exists():
                continue
            reason = _no_room(error)
            if reason is not None:
                raise OSError(reason, os.strerror(reason), str(path)) from error
            if isinstance(error, OSError) and error.errno is not None:
                raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)


def version(file: Path) -> tuple[int, int] | None:
    """What changes when a file is written again; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _temporary(path: Path) -> Path:
    """An empty file beside ``path``, whose name says which process writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-{neighbourhood()}-{os.getpid()}-", suffix=path.suffix)
    os.close(handle)
    return Path(name)


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

    What a process still writes stays: one of this machine is asked for by its number, one of another has a day.
    """
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        named = _TEMPORARY.fullmatch(file.name)
        if named and (stem is None or file.name.startswith(f".{stem}-")) and file.is_file() and _abandoned(file, named):
            file.unlink(missing_ok=True)


def _abandoned(file: Path, named: re.Match[str]) -> bool:
    if named["where"] == neighbourhood():
        return not is_running(int(named["process"]))
    with contextlib.suppress(FileNotFoundError):
        return time.time() - file.stat().st_mtime > _ABANDONED
    return False


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
