"""Disks that are full: no file may grow beyond a size. There is a sentence, and with room again the rows of an undisturbed run."""

from __future__ import annotations

import os
import random
import resource
import shutil
from pathlib import Path

from faults.children import PATIENCE, Ended, kill, start, wait
from faults.kills import JOBS, Undisturbed, undisturbed, words_of
from faults.outcomes import Counts, compare, left_in, unfinished

TRIED = ("saved", "finetune", "rounds", "figure1", "text")


def run_with(size: int, words: list[str], log: Path) -> Ended:
    """A command line whose files may have so many bytes; what it prints goes through a pipe, which has room."""
    reader, writer = os.pipe()

    def limited() -> None:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    child = start(words, log, limited)
    os.close(writer)
    code = wait(child, 300 * PATIENCE[0])
    if code is None:
        kill(child)
    with os.fdopen(reader, errors="replace") as printed:
        return Ended(code, printed.read())


def filled(job: list[str], place: Path, size: int, right: Undisturbed, counts: Counts, what: str) -> None:
    """Run a job with a limit of so many bytes, then without one, and compare."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    ended = run_with(size, words_of(job, place), place / "out.log")
    counts.add("full disks")
    counts.add("runs that failed", int(ended.code != 0))
    counts.add("tracebacks", int("Traceback" in ended.text or ended.code is None), f"{what}: {ended.text[-300:]}")
    counts.add("without a sentence", int(ended.code not in (0, None) and not ended.told), f"{what}: {ended.text[-300:]}")
    unfinished(right.left, place / "run", counts, what)
    ended = run_with(resource.RLIM_INFINITY, words_of(job, place, True), place / "out.log")
    counts.add("not completed with room again", int(ended.code != 0), f"{what}: {ended.text[-300:]}")
    compare(right.left, left_in(place / "run", place / "cache"), counts, what)


def full_disk(work: Path, share: float, seed: int) -> Counts:
    """40 limits (times ``share``), from a few bytes to more than any file has."""
    counts, chance, rights = Counts("full_disk"), random.Random(seed), {}
    for number in range(max(1, round(40 * share))):
        name, size = TRIED[number % len(TRIED)], int(2 ** chance.uniform(4, 18))
        if name not in rights:
            rights[name] = undisturbed(JOBS[name], work / name / "right")
        filled(JOBS[name], work / name / "wrong", size, rights[name], counts, f"{name} with {size} bytes")
    return counts
