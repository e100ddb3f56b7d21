"""One job of a study: its cells one after the other, each a row that is written at once."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pandas as pd
import torch
from tqdm import tqdm

from lrp.dataset.base import Data, Dataset
from lrp.errors import check_bool, check_folder, check_seed, check_threads, own_code
from lrp.job.device import find_device, use_threads
from lrp.job.running import running
from lrp.job.tracked import track_files
from lrp.results.columns import COMMON
from lrp.results.run_folder import RunFolder
from lrp.tracker.base import Tracker

log = logging.getLogger(__name__)

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a cell is computed: ``folder`` is the job's, for states that let it go on after a kill."""

    data: Data
    seed: int
    device: torch.device
    folder: Path


class Study(Protocol):
    """``cells``: what to do, each named by the columns ``keys``; ``run`` does one and gives its row and the rows of the table
    ``details`` (a file's name). ``columns`` are the table's, without ``study``, ``dataset`` and ``seed``."""

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[str, ...]]
    details: ClassVar[str]
    uses: ClassVar[tuple[str, ...]]  # nodes and groups of the configuration that it reads, beside those that every study does

    def cells(self) -> Sequence[Cell]:
        """What is trained, one row each."""
        ...

    def run(self, cell: Cell, place: Place) -> tuple[dict[str, Any], pd.DataFrame]:
        """Compute one cell: its row, and its table of details."""
        ...

    def finish(self, place: Place) -> None:
        """Remove the states of a job that is done."""


USES = ("study", "dataset", "tracker", "seed", "device", "threads", "resume", "cache_dir", "experiment", "optimise")


@dataclass(frozen=True)
class StudyJob:
    """A study on one data set with one seed; ``settings`` is the resolved configuration that it was made from."""

    study: Study
    dataset: Dataset
    tracker: Tracker
    seed: int
    device: str
    threads: int | None
    cache_dir: str
    resume: bool
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        check_threads(self.threads)
        check_folder("cache_dir", self.cache_dir)
        check_bool("resume", self.resume)
        find_device(self.device)

    @property
    def numbers(self) -> list[str]:
        """The columns of its table, without those that name a cell."""
        return [name for name in self.study.columns if name not in self.study.keys]

    def run(self, folder: Path, group: str | None = None, draw: Callable[[], Sequence[Path]] | None = None) -> pd.DataFrame:
        """Run the cells that the folder does not hold yet and return all its rows. ``draw``: as of a pruning. Raises InputError."""
        study = self.study
        cells = study.cells()
        results = RunFolder(folder, self.settings, self.resume, [*COMMON, *study.columns], study.details, study.keys, len(cells))
        todo = [cell for cell in cells if not results.finished(**{key: cell[key] for key in study.keys})]
        if not todo:
            log.info("all %d rows of %s are finished", len(results.rows), folder)
            shutil.rmtree(folder / "states", ignore_errors=True)  # a kill may fall between the last row and ``finish``
            return results.rows
        use_threads(self.threads)
        device = find_device(self.device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        with running(Path(self.cache_dir).expanduser(), alone=False):
            with own_code(f"dataset={self.dataset.name}", self.dataset):
                data = self.dataset.load()
            results.belongs(data=data.whole_fingerprint())
            place = Place(data, self.seed, device, folder)
            chosen = {"study": study.name, "dataset": data.name}
            with self.tracker.start(self.settings, chosen, folder, group) as tracked:
                tracked.rows(results.rows)
                log.info("%s: %d of %d cells to compute", study.name, len(todo), len(cells))
                for cell in tqdm(todo, desc=study.name, initial=len(cells) - len(todo), total=len(cells), unit="cell", disable=None):
                    results.update()
                    if results.finished(**{key: cell[key] for key in study.keys}):  # by another process
                        continue
                    found, details = study.run(cell, place)
                    row = {"study": study.name, "dataset": data.name, "seed": self.seed, **found}
                    details = details.assign(**{key: cell[key] for key in study.keys})
                    results.add(row, details[[*study.keys, *(name for name in details if name not in study.keys)]])
                    tracked.row(row, None)
                    log.info("%s", ", ".join(f"{key} {_short(value)}" for key, value in row.items() if key not in COMMON))
                track_files(self.tracker, tracked, folder, draw)
            study.finish(place)
        return results.rows


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
