"""Jobs that run beside each other on a machine, and the one that has to run alone."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from lrp.errors import InputError
from lrp.locks import lockable, machine

log = logging.getLogger(__name__)


@contextlib.contextmanager
def running(folder: Path, alone: bool) -> Iterator[None]:
    """Say to other jobs with the same cache on the same machine that this one runs. Where ``folder`` has no locks nobody knows of others.

    Raises:
        InputError: If it measures latency, and so has to be ``alone``, while another job runs, or if it would disturb another that does.
    """
    folder = folder / "running"
    folder.mkdir(parents=True, exist_ok=True)
    if not lockable(folder / "gate.lock"):
        if alone:
            log.warning("evaluation.latency=true: nobody knows whether other jobs run beside this one, which has to run alone")
        yield
        return
    gate = FileLock(folder / "gate.lock")
    with gate:
        for file in folder.glob(f"*-{machine()}-*.job"):
            other = FileLock(file)
            try:
                with other.acquire(timeout=0):
                    pass
                file.unlink(missing_ok=True)  # left by a job that was killed
                continue
            except Timeout:
                pass
            if alone:
                raise InputError("evaluation.latency=true: another job is running beside this one, which has to run alone")
            if file.name.startswith("alone"):
                raise InputError("another job is measuring latency (evaluation.latency=true); start this one when that is done")
        number = 0
        while (file := folder / f"{'alone' if alone else 'beside'}-{machine()}-{number}.job").exists():
            number += 1
        held = FileLock(file)
        held.acquire()
    try:
        yield
    finally:
        with gate:
            held.release()
            file.unlink(missing_ok=True)
