"""Damaged files of a cache and of unfinished work: they are made again, and the rows are those of an intact run.

Most damages are tried on what reads such a file, in this process; some on whole jobs.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from faults.children import PATIENCE, files_below, kill, run, start, wait
from faults.damage import damaged, described_by, renamed
from faults.kills import JOBS, Undisturbed, undisturbed, words_of
from faults.outcomes import Counts, compare, left_in
from safetensors import safe_open

from lrp.entries import read_entry, read_state, read_values

STOPPED = {  # of a job of kills.py: stopped as soon as there is such a file; "": not at all
    "training": (["scorer=magnitude", "sparsity.grid=[0.5]", "model.training.epochs=3"], "cache/models/*.unfinished.pt"),
    "first_order": (["scorer=perturbation", "sparsity.grid=[0.5]"], ""),
    "exact": (["estimator=exact", "scorer=perturbation", "sparsity.grid=[0.5]"], "cache/moments/*.partial/*"),
    "finetune": (
        ["scorer=magnitude", "recovery=finetune", "recovery.epochs=3", "recovery.images=300", "sparsity.grid=[0.5]"],
        "run/unfinished-*.pt",
    ),
    "rounds": (
        ["method=output_aware", "rounds.keep_factor=0.6", "sparsity.grid=[0.8]", "calibration.samples=2048"],
        "cache/rounds/*/2.safetensors",
    ),
    "rank_switch": (JOBS["rank_switch"], "run/0/states/*"),
}


class Snapshot(NamedTuple):
    """A job that was stopped, the files of it that can be damaged, and what it leaves undisturbed."""

    job: list[str]
    place: Path
    files: list[Path]
    right: Undisturbed


def snapshot(name: str, work: Path) -> Snapshot:
    """Run a job undisturbed, then again until it has written what is to be damaged."""
    words, pattern = STOPPED[name]
    job, place = ["-m", *(word for word in words if word != "-m")], work / name / "stopped"
    right = undisturbed(job, work / name / "right")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    child, end = start(words_of(job, place), place / "out.log"), time.monotonic() + 120 * PATIENCE[0]
    while wait(child, 0.002) is None:
        found = [file for file in place.glob(pattern) if not file.name.startswith(".")] if pattern else []
        if found or time.monotonic() > end:
            kill(child)
            break
    kinds = (".safetensors", ".pt")
    files = [file for file in files_below(place) if not file.name.startswith(".") and (file.suffix in kinds or file.parent.name == "dense")]
    return Snapshot(job, place, sorted(file for file in files if file.suffix != ".lock" and file.stat().st_size), right)


def described(file: Path) -> dict[str, Any]:
    if file.suffix == ".json":
        return json.loads(file.read_text())
    with safe_open(file, framework="pt") as held:
        return json.loads(held.metadata()["lrp"])


def read(file: Path, description: dict[str, Any]) -> Any:
    """What lrp reads from a file that an intact one of this description belongs in the place of; None: it is made again."""
    made_from = description["made_from"]
    if file.suffix == ".json":
        return read_values(file, made_from)
    return (read_state if "state" in description else read_entry)(file, made_from)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(equal, a, b))
    return repr(a) == repr(b)


def harmed(file: Path, others: Sequence[Path], chance: random.Random) -> tuple[str, bytes]:
    """A kind of damage and the bytes: random ones, two tensors exchanged, or those, or the description, of another file of the kind."""
    data, mine = file.read_bytes(), described(file)["made_from"]
    kin = [other for other in others if other.suffix == file.suffix and described(other)["made_from"] != mine]
    if kin and chance.random() < 0.2:
        other = chance.choice(kin).read_bytes()
        if file.suffix == ".json" or chance.random() < 0.5:
            return "another file in its place", other
        return "the description of another file", described_by(data, other)
    if file.suffix == ".safetensors" and chance.random() < 0.1:
        return "two tensors exchanged", renamed(data, chance)
    return damaged(data, chance)


class _Said(logging.Handler):
    """Counts the lines of lrp's log."""

    lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1


def reading(files: Sequence[Path], file: Path, times: int, chance: random.Random, counts: Counts) -> None:
    """Damage files and read each, in this process, into ``file`` with the suffix of what it stands for."""
    said, log = _Said(), logging.getLogger("lrp")
    log.addHandler(said)
    log.propagate = False
    known = {each: (described(each), read(each, described(each))) for each in files}
    for _ in range(times):
        chosen = chance.choice(files)
        description, right = known[chosen]
        kind, data = harmed(chosen, files, chance)
        target, before = file.with_suffix(chosen.suffix), said.lines
        target.write_bytes(data)
        what = f"{chosen.parent.name}/{chosen.name}: {kind}"
        counts.add("damaged files")
        try:
            found = read(target, description)
        except Exception as error:
            counts.add("exceptions", 1, f"{what}: {type(error).__name__}: {error}")
            continue
        counts.add("taken for another", int(found is not None and not equal(found, right)), what)
        counts.add("not used, without a word", int(found is None and said.lines == before), what)
    log.removeHandler(said)
    log.propagate = True


def whole_job(taken: Snapshot, files: Sequence[Path], place: Path, chance: random.Random, counts: Counts) -> None:
    """Damage one file of a stopped job, let it go on, and compare its rows."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(taken.place, place)
    (place / "out.log").unlink(missing_ok=True)
    chosen = chance.choice(taken.files)
    kind, data = harmed(chosen, files, chance)
    (place / chosen.relative_to(taken.place)).write_bytes(data)
    what = f"{chosen.relative_to(taken.place)}: {kind}"
    ended = run(words_of(taken.job, place, True), place / "out.log", 300)
    counts.add("damaged files")
    counts.add("jobs that went on from a damaged file")
    counts.add("exceptions", int(ended.code != 0 or "Traceback" in ended.text), f"{what}: {ended.text[-300:]}")
    compare(taken.right.left, left_in(place / "run", place / "cache"), counts, what)


def cached(work: Path, share: float, seed: int) -> Counts:
    """1,060 damages of which 60 are followed by a whole job (times ``share``)."""
    counts, chance = Counts("cached"), random.Random(seed)
    snapshots = [snapshot(name, work) for name in STOPPED]
    files = [file for taken in snapshots for file in taken.files]
    for name in ("damaged files", "taken for another", "not used, without a word", "exceptions"):
        counts.add(name, 0)
    reading(files, work / "damaged", round(1000 * share), chance, counts)
    for number in range(max(1, round(60 * share))):
        whole_job(snapshots[number % len(snapshots)], files, work / "trial", chance, counts)
    return counts
