"""Locks of files, where there are any: what they guard is right without them."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_told: set[str] = set()  # folders of which the log says that they have no locks


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """What runs in this context waits until nobody else holds the lock of this file, where the file system has locks.

    A shared file system may have none, or have them for the processes of one machine alone. So a lock is there to save work, never to
    keep files whole: whatever runs here writes files whole and by their content (``lrp.files.write_whole``), and finds it well when
    another process has written the same.
    """
    if not lockable(file):
        yield
        return
    with FileLock(file):
        yield


def lockable(file: Path) -> bool:
    """Whether the file system takes locks of this file, which is made; where it does not, the log says so once."""
    try:
        import fcntl  # optional: Windows has none, and locks in another way, which filelock knows
    except ImportError:
        return True
    with open(file, "a") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                return True  # somebody else holds it
            if str(file.parent) not in _told:
                _told.add(str(file.parent))
                log.warning("%s: no locks here (%s); two jobs that need the same may both compute it", file.parent, error.strerror)
            return False
    return True


@functools.cache
def machine() -> str:
    """Eight digits that stand for this machine since its start: its file systems may be seen by others, its processes are not."""
    return _digits(_of_linux("boot") or [platform.node()])


@functools.cache
def neighbourhood() -> str:
    """Eight digits that stand for where a process id means what it means here: a container has numbers of its own."""
    return _digits([machine(), platform.node(), *_of_linux("processes")])


def _of_linux(what: str) -> list[str]:
    try:
        return [Path("/proc/sys/kernel/random/boot_id").read_text() if what == "boot" else os.readlink("/proc/self/ns/pid")]
    except OSError:
        return []


def _digits(parts: list[str]) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:8]


def is_running(process: int) -> bool:
    """Whether a process of this number runs here; true where that cannot be asked."""
    if os.name != "posix":
        return True  # there the signal 0 is no question
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of somebody else
        return True
    return True
