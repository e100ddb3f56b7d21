"""A sweep on a cluster that loses a job while it computes, beside one that nothing disturbs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from shell import QUICK

GRID = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]  # trained a little after each, so that a row takes a second
SWEEP = ["-m", "seed=0,1", "scorer=magnitude", f"sparsity.grid=[{','.join(map(str, GRID))}]"]
SWEEP += ["recovery=finetune", "recovery.epochs=1", "recovery.images=1500"]
WORDS = [*SWEEP, *(word for word in QUICK if not word.startswith("threads="))]
PATIENCE = 600  # seconds


def command(place: Path, name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", "lrp.run", *WORDS, f"cache_dir={place / 'cache'}", f"hydra.sweep.dir={name}", *words]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """What the launcher gives a job decides its threads, not what the tests are run with."""
    return {**{name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}, **more}


def sweep(place: Path, name: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(place, name, *words), cwd=place, env=environment(more), capture_output=True, text=True, timeout=PATIENCE)


Lose = Callable[[int, subprocess.Popen], object]  # gets the id of a job's process, and the command


def sweep_that_loses_one(place: Path, name: str, lose: Lose, *words: str, **more: str) -> tuple[int, str]:
    """Run a sweep, and ``lose`` the process of its first job, which has stored rows and will store more; the exit code
    and what was said."""
    log, job = place / f"{name}.log", place / name / "0"
    with open(log, "w") as file:
        process = subprocess.Popen(command(place, name, *words), cwd=place, env=environment(more), stdout=file, stderr=subprocess.STDOUT)
    end = time.monotonic() + PATIENCE
    while count(job) < 1:
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    lose(who_writes(job / "lrp.log"), process)
    process.wait(PATIENCE)
    return process.returncode, log.read_text()


def count(job: Path) -> int:
    """The rows that a job has stored."""
    file = job / "results.csv"
    return len(file.read_text().splitlines()) - 1 if file.exists() else 0


def who_writes(file: Path) -> int:
    """The process that has this file open."""
    for place in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(place) == str(file):
                return int(place.parts[2])
        except OSError:
            continue
    raise AssertionError(f"nobody writes {file}")


def rows(folder: Path) -> pd.DataFrame:
    """What was computed, without how long it took."""
    table = pd.read_csv(folder / "results.csv")
    return table[[name for name in table if not name.startswith("seconds")]]
