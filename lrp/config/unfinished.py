"""Which runs below a folder are not finished, and the commands that finish them."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra

from lrp.config.check import NUMBERED
from lrp.config.paths import CONF
from lrp.config.plugins import BASIC
from lrp.config.words import MOST, combinations, parse, word
from lrp.errors import InputError, counted
from lrp.results.jobs import failure, rows_asked, rows_of, why_no_rows
from lrp.results.plain import read_plain

SWEEP, JOB = "multirun.yaml", ".hydra/overrides.yaml"  # as Hydra notes the words


@dataclass(frozen=True)
class Run:
    """A run that a folder holds, or that its sweep asks for.

    Attributes:
        folder: Where it is, or would be.
        words: What it was asked to do, without what says where and how.
        state: Why it is not finished, in a few words; None: it is.
        command: What finishes it.
    """

    folder: Path
    words: frozenset[str]
    state: str | None
    command: str


def unfinished(places: Sequence[Path]) -> tuple[list[Run], list[Run]]:
    """The runs below these folders, all of them and those that are not finished. A run that one folder lacks and another holds, as when
    several machines shared a sweep, is finished.

    Raises:
        InputError: For a file of Hydra's that cannot be read.
    """
    runs = [run for place in places for run in _runs(place)]
    done = {run.words for run in runs if run.state is None}
    return runs, [run for run in runs if run.state is not None and run.words not in done]


def _runs(place: Path) -> Iterator[Run]:
    sweeps = sorted(file.parent for file in place.rglob(SWEEP))
    begun = sorted((file.parents[1] for file in place.rglob(JOB)), key=lambda folder: (len(folder.name), folder.name))
    for sweep in sweeps:
        noted = read_plain(sweep / SWEEP)
        hydra = noted.get("hydra") if isinstance(noted, dict) else None
        if not isinstance(hydra, dict):
            raise InputError(f"{sweep / SWEEP} is not as Hydra writes it; remove it, or leave the folder out")
        numbered = _at(hydra, "sweep", "subdir") == NUMBERED
        own = [folder for folder in begun if sweep in folder.parents]
        known = {folder.relative_to(sweep).as_posix() if numbered else _same(_words(folder)): folder for folder in own}
        for number, words in enumerate(_jobs(hydra)):
            folder = known.pop(str(number) if numbered else _same(words), None)
            if folder is not None:
                yield _run(folder, words, hydra)
            elif numbered:
                yield _missing(sweep / str(number), words, hydra)
            else:  # what its folder is called, Hydra alone knows
                yield Run(sweep, _same(words), f"missing: {' '.join(words)}", _command(_list(hydra, "task"), hydra, "sweep.dir", sweep))
        for folder in known.values():  # of a search, or of the same sweep with more values
            yield _run(folder, _words(folder), hydra)
    for folder in begun:
        if not any(sweep in folder.parents for sweep in sweeps):
            yield _run(folder, _words(folder), _noted(folder))


def _run(folder: Path, words: Sequence[str], hydra: Mapping[str, Any]) -> Run:
    rows, asked = rows_of(folder), rows_asked(folder)
    state = None
    if not rows:
        state = f"no rows: {why_no_rows(folder)}"
    elif asked is not None and rows < asked:
        reason = failure(folder)
        state = f"half done: {rows} of {counted(asked, 'row')}" + (f", {reason}" if reason else "")
    return Run(folder, _same(words), state, _command(words, hydra, "run.dir", folder))


def _missing(folder: Path, words: Sequence[str], hydra: Mapping[str, Any]) -> Run:
    return Run(folder, _same(words), "missing: it did not begin", _command(words, hydra, "run.dir", folder))


def _jobs(hydra: Mapping[str, Any]) -> list[list[str]]:
    """The words of each job of a sweep, in the order of their numbers; none of a search, whose jobs its sweeper chooses.

    Raises:
        InputError: For more jobs than anybody waits for.
    """
    if _at(hydra, "sweeper", "_target_") != BASIC:
        return []
    params = _at(hydra, "sweeper", "params") or {}
    texts = [*(f"{key}={value}" for key, value in params.items()), *_list(hydra, "task")]
    with contextlib.ExitStack() as stack:
        if not GlobalHydra.instance().is_initialized():
            stack.enter_context(initialize_config_dir(str(CONF), version_base="1.3"))  # glob() stands for the options of a group
        words = parse(texts, GlobalHydra.instance().config_loader())
        if (count := combinations(words)) > MOST:
            raise InputError(f"{' '.join(texts)}: these are {count} jobs, more than {MOST}")
        (jobs,) = BasicSweeper.split_arguments(words, None)
    return jobs


def _command(words: Sequence[str], hydra: Mapping[str, Any], option: str, folder: Path) -> str:
    """The command that goes on with a run (``run.dir``) or a sweep (``sweep.dir``) in its folder."""
    own = _list(hydra, "hydra")
    many = option == "sweep.dir"
    kept = [each for each in own if not each.startswith(("hydra.mode=", "hydra.sweep.dir=", "hydra.run.dir="))]
    if not many:  # how the jobs of the sweep were started does not matter to one of them
        kept = [each for each in kept if each.startswith("hydra.searchpath=")]
        if "hydra.mode=MULTIRUN" not in own and _at(hydra, "mode") == "MULTIRUN":  # an experiment that is a sweep by itself
            kept.append("hydra.mode=RUN")
    words = [each for each in words if not each.startswith("resume=")]
    return shlex.join(["lrp", "run", *["-m"] * many, *words, *kept, "resume=true", word(f"hydra.{option}", str(folder))])


def _words(folder: Path) -> list[str]:
    noted = read_plain(folder / JOB)
    return [str(each) for each in noted] if isinstance(noted, list) else []


def _noted(folder: Path) -> dict[str, Any]:
    file = folder / ".hydra/hydra.yaml"
    noted = read_plain(file) if file.is_file() else {}
    hydra = noted.get("hydra") if isinstance(noted, dict) else {}
    return hydra if isinstance(hydra, dict) else {}


def _same(words: Sequence[str]) -> frozenset[str]:
    """What tells a run from others: its words, however they are ordered, without what says where and how it runs."""
    return frozenset(each for each in words if not each.startswith(("resume=", "threads=", "cache_dir=")))


def _at(node: Any, *keys: str) -> Any:
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _list(hydra: Mapping[str, Any], name: str) -> list[str]:
    found = _at(hydra, "overrides", name)
    return [str(each) for each in found] if isinstance(found, list) else []
