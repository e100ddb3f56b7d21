"""Several processes on one cache, started at once, one of them killed now and then: the rows are those of a run alone."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from faults.children import PATIENCE, kill, quick, run, start, wait
from faults.kills import JOBS, undisturbed
from faults.outcomes import Counts, compare, left_in

TRIED = ("exact", "rounds", "sweep")
PROCESSES = 3


def shared_cache(work: Path, share: float, seed: int) -> Counts:
    """10 rounds (times ``share``) of three processes."""
    counts, chance, rights = Counts("shared_cache"), random.Random(seed), {}
    for number in range(max(1, round(10 * share))):
        name = TRIED[number % len(TRIED)]
        if name not in rights:
            rights[name] = undisturbed(JOBS[name], work / name / "right")
        place = work / name / "together"
        shutil.rmtree(place, ignore_errors=True)
        folders = [place / str(each) / "run" for each in range(PROCESSES)]
        for folder in folders:
            folder.parent.mkdir(parents=True)

        def words(folder: Path, resume: bool, name: str = name, place: Path = place) -> list[str]:
            return [*quick(*JOBS[name]), f"cache_dir={place / 'cache'}", f"hydra.sweep.dir={folder}", *["resume=true"] * resume]

        children = [start(words(folder, False), folder.parent / "out.log") for folder in folders]
        killed = chance.random() < 0.5
        if killed and wait(children[0], chance.uniform(0.3, 1.5) * rights[name].seconds) is None:
            kill(children[0])
        codes = [wait(child, 600 * PATIENCE[0]) for child in children[killed:]]
        if killed:
            codes.append(run(words(folders[0], True), folders[0].parent / "out.log", 600).code)
        counts.add("processes", PROCESSES)
        counts.add("runs that failed", sum(code != 0 for code in codes), f"{name}: {codes}")
        for folder in folders:
            compare(rights[name].left, left_in(folder, place / "cache"), counts, name)
    return counts
