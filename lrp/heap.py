"""How much memory that was freed a process keeps."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
SMALL, USUAL = 2**20, 2**25  # bytes; glibc itself raises it to 32 MiB as blocks of such sizes are freed

_depth = 0  # of contexts that are open


def _libc() -> Any:
    """glibc, or None where the system has another one."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if all(hasattr(libc, name) for name in ("mallopt", "malloc_trim")) else None


def give_back() -> None:
    """Let the system have what was freed and lies between what is in use: for loops that would keep a little more in each round."""
    if libc := _libc():
        libc.malloc_trim(0)


@contextmanager
def given_back() -> Iterator[None]:
    """Within it blocks of a MiB and more go back to the system as they are freed. glibc keeps those of up to 32 MiB, and what lies between
    blocks that are in use is of no use to anybody: as much again as the matrices of a layer. Each block costs page faults, about a tenth of
    the time. Does nothing where there is no glibc."""
    global _depth
    libc = _libc()
    if libc and not _depth:
        libc.mallopt(MMAP_THRESHOLD, SMALL)
        libc.malloc_trim(0)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if libc and not _depth:
            libc.malloc_trim(0)
            libc.mallopt(MMAP_THRESHOLD, USUAL)
