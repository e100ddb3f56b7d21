"""Bad inputs: command lines, data, checkpoints, run folders and calls. A sentence, or a result that was asked for; never a traceback."""

from __future__ import annotations

import logging
import resource
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.bad_checkpoints import checkpoint_cases, run_folder_cases
from faults.bad_data import Case, folder_cases, parquet_cases
from faults.calls import calls, problem
from faults.children import leftovers, quick, run
from faults.more_calls import more_calls
from faults.outcomes import Counts
from faults.words import EITHER, REFUSED
from safetensors.torch import load_file, save

GIGABYTES, LONGEST = 12, 700
FAST = ["scorer=magnitude", "sparsity.grid=[0.5]"]


def command_lines() -> Iterator[Case]:
    for expected, lines in (("refused", REFUSED), ("either", EITHER)):
        for line in lines.strip().splitlines():
            yield Case(line, shlex.split(line), expected)


def every(work: Path, network: bytes) -> Iterator[tuple[Case, Callable[[], object] | None]]:
    """All command lines with what is to be done before each; ``network``: a checkpoint that fits."""
    for case in (
        *command_lines(),
        *parquet_cases(work / "data"),
        *folder_cases(work / "data"),
        *checkpoint_cases(work / "weights", network),
    ):
        yield case, None
    yield from run_folder_cases(work / "folders")


def complete(words: list[str], cache: Path, folder: Path) -> list[str]:
    """Words after the fast defaults, with the folders that they do not name."""
    names = {word.split("=")[0] for word in words}
    study = any(name.split(".")[0] in ("study", "experiment") for name in names)
    fast = [word for word in FAST if word.split("=")[0] not in names and not study]
    places = {"cache_dir": cache, "hydra.run.dir": folder, "hydra.sweep.dir": folder}
    return [*fast, *quick(*words), *(f"{name}={place}" for name, place in places.items() if name not in names)]


def limited() -> None:
    """A child that asks for more memory than this fails, and takes nothing else with it."""
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES * 2**30, GIGABYTES * 2**30))


def attempt(case: Case, work: Path, cache: Path, counts: Counts) -> None:
    """Run one command line and count what is wrong with how it ends."""
    folder = work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    words = complete(list(case.words), cache, folder)
    ended = run(words, work / "out.log", 90, limited)
    refused, last = ended.code != 0, (ended.told or ended.text.splitlines()[-1:] or [""])[-1]
    said = any(word.partition("=")[0] + "=" in line for line in ended.text.splitlines() for word in case.words if "=" in word)
    counts.add("bad inputs", int(case.expected != "runs"))
    counts.add("refused in a sentence", int(refused and len(ended.told) == 1))
    counts.add("tracebacks", int("Traceback" in ended.text or "(the traceback is in" in ended.text), f"{case.name}: {last[:300]}")
    counts.add("without an end", int(ended.code is None or ended.code < 0), f"{case.name}: {ended.code}")
    counts.add("accepted without a word", int(case.expected == "refused" and not refused and not said), case.name)
    counts.add("good inputs refused", int(case.expected == "runs" and refused), f"{case.name}: {last[:300]}")
    one = len(ended.told) == 1 and len(ended.told[0]) < LONGEST
    counts.add("not one sentence", int(refused and not one), f"{case.name}: {len(ended.told)} lines, {last[:300]}")
    left = [file for file in leftovers(folder, cache) if not file.name.startswith("unfinished")]
    counts.add("files left over", len(left), f"{case.name}: {[file.name for file in left]}")
    for file in left:
        file.unlink()
    canary = Path("CANARY")
    counts.add("code of a file executed", int(canary.exists()), case.name)
    canary.unlink(missing_ok=True)


def attempt_calls(work: Path, every_nth: int, counts: Counts) -> None:
    logging.disable(logging.CRITICAL)
    for number, call in enumerate([*calls(work), *more_calls(work)]):
        if number % every_nth:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = problem(call)
        counts.add("bad inputs", int(call.expected != "works"))
        counts.add("refused in a sentence", int(call.expected == "refused" and not found))
        counts.add("accepted without a word", int(found == "accepted"), call.name)
        counts.add("good inputs refused", int(found == "refused"), call.name)
        counts.add("tracebacks", int(found not in ("", "accepted", "refused")), f"{call.name}: {found}")
    logging.disable(logging.NOTSET)


def inputs(work: Path, share: float, seed: int) -> Counts:
    """Every bad input (of ``share`` below 1 each so manyth; nothing is drawn)."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    counts, cache, every_nth = Counts("inputs"), work / "cache", max(1, round(1 / share))
    ended = run(complete([], cache, work / "run"), work / "out.log")
    assert ended.code == 0, ended.text
    network = save(load_file(next((cache / "models").glob("*.safetensors"))))
    for number, (case, before) in enumerate(every(work, network)):
        if number % every_nth == 0:
            if before is not None:
                before()
            attempt(case, work, cache, counts)
    attempt_calls(work, every_nth, counts)
    return counts
