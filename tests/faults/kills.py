"""kill -9 at any moment, then resume=true: the rows are those of an undisturbed run, and nothing is left over."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from faults.children import files_below, kill, quick, run, start, wait
from faults.outcomes import Counts, Left, compare, left_in, unfinished

GRID = "sparsity.grid=[0.5,0.9]"
TEXT = [
    "model=small_lm", "model.width=16", "model.layers=1", "model.heads=2", "model.length=16", "dataset=text", "dataset.length=16",
    f"dataset.path={Path(__file__).resolve().parent.parent.parent / 'README.md'}", "calibration.samples=2048",
]  # fmt: skip
JOBS = {
    "sweep": ["-m", "scorer=perturbation,magnitude", GRID],
    "exact": ["-m", "estimator=exact", "scorer=perturbation,variance", GRID],
    "finetune": [
        "-m",
        "scorer=magnitude,energy",
        "recovery=finetune",
        "recovery.epochs=2",
        "recovery.images=300",
        "recovery.distill=0.5",
        GRID,
    ],
    "rounds": ["-m", "method=output_aware", "rounds.keep_factor=0.6", "sparsity.grid=[0.5,0.8]", "calibration.samples=2048", "seed=0,1"],
    "saved": ["-m", "method=alds", "method.starts=1,2", "recovery=batchnorm", "save=true", GRID],
    "text": ["-m", *TEXT, "method=output_aware,svd_llm", "estimator.output=hellinger", "save=true", "sparsity.grid=[0.5,0.8]"],
    "search": ["-m", *TEXT, "method=output_aware", "search=coordinate", "search.images=32", "seed=0,1", "sparsity.grid=[0.8]"],
    "figure1": ["experiment=figure1_small", "study.epochs=2", "study.dims=[10]", "study.ranks=[-1,5]", "seed=0,1"],
    "rank_switch": [
        "-m",
        "study=rank_switch",
        "dataset=mnist_small",
        "threads=1",
        "study.width=0.05",
        "study.train_ranks=[1,-1]",
        "study.switch_ranks=[2,-1]",
        "study.switch_epochs=[1]",
        "study.epochs=2",
        "study.images=400",
    ],
    "simplicity_bias": [
        "-m",
        "study=simplicity_bias",
        "dataset=mnist_small",
        "threads=1",
        "study.networks=[mlp]",
        "study.depths=[1,2]",
        "study.images=400",
        "study.epochs=2",
        "study.gram_images=50",
        "study.scoring_images=4",
        "study.sparsities=[0.5]",
    ],
}


class Undisturbed(NamedTuple):
    """A run to its end: what it leaves, and how many seconds it took."""

    left: Left
    seconds: float


def words_of(job: list[str], place: Path, resume: bool = False) -> list[str]:
    """A command line whose cache and folder are below ``place``."""
    return [*quick(*job), f"cache_dir={place / 'cache'}", f"hydra.sweep.dir={place / 'run'}", *(["resume=true"] if resume else [])]


def undisturbed(job: list[str], place: Path) -> Undisturbed:
    """Run a job to its end in a new folder."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    begin = time.monotonic()
    ended = run(words_of(job, place), place / "out.log", 600)
    assert ended.code == 0, ended.text
    return Undisturbed(left_in(place / "run", place / "cache"), time.monotonic() - begin)


def wait_for_change(child: int, place: Path, number: int, seconds: float) -> int | None:
    """Wait for the so manyth change of any file below ``place``; the exit code of a child that ends before."""
    before, end = files_below(place), time.monotonic() + seconds
    while number and time.monotonic() < end:
        code = wait(child, 0)
        if code is not None:
            return code
        now = files_below(place)
        number -= now != before
        before = now
        time.sleep(0.0005)
    return None


def disturbed(job: list[str], place: Path, right: Undisturbed, chance: random.Random, counts: Counts, what: str, most: int) -> int:
    """Kill a run up to ``most`` times, let it end, and compare; how often it was killed."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    trained = place.parent / "right/cache/models"
    if trained.exists() and chance.random() < 0.7:  # else it is trained, and killed while it is
        shutil.copytree(trained, place / "cache/models")
    kills = 0
    while kills < most:
        child = start(words_of(job, place, kills > 0), place / "out.log")
        if chance.random() < 0.4:
            code = wait(child, chance.uniform(0.1, 1) ** 2 * 0.6 * right.seconds)
        else:  # in the middle of a write, or right behind it
            code = wait_for_change(child, place, chance.randint(1, 15), right.seconds)
        if code is not None:
            counts.add("runs that failed", int(code != 0), what)
            break
        kill(child)
        kills += 1
        unfinished(right.left, place / "run", counts, f"{what} after kill {kills}")
    ended = run(words_of(job, place, True), place / "out.log", 600)
    counts.add("runs that failed", int(ended.code != 0), f"{what}: {ended.text[-300:]}")
    compare(right.left, left_in(place / "run", place / "cache"), counts, what)
    return kills


def kills(work: Path, share: float, seed: int) -> Counts:
    """Kill runs of every kind until there are 200 kills (times ``share``)."""
    counts, chance = Counts("kills"), random.Random(seed)
    wanted, rights, trial = max(1, round(200 * share)), {}, 0
    counts.add("kills", 0)
    while counts.numbers["kills"] < wanted:
        name = list(JOBS)[trial % len(JOBS)]
        if name not in rights:
            rights[name] = undisturbed(JOBS[name], work / name / "right")
        most = min(10, wanted - counts.numbers["kills"])
        counts.add("kills", disturbed(JOBS[name], work / name / "wrong", rights[name], chance, counts, f"{name}, trial {trial}", most))
        counts.add("runs")
        trial += 1
    return counts
