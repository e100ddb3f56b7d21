"""What of a finished job a tracker keeps: its tables, and what is drawn of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from lrp.errors import first_line
from lrp.tracker.base import Tracked, Tracker

log = logging.getLogger(__name__)

_TABLES = (".csv", ".parquet", ".json", ".yaml")


def track_files(tracker: Tracker, tracked: Tracked, folder: Path, draw: Callable[[], Sequence[Path]] | None) -> None:
    """Give a tracker the tables of a run folder, results.csv first, and the figures and the page that ``draw`` makes. What cannot be
    drawn is said in the log."""
    if not tracker.active:
        return
    own = tracker.name + ".json"  # what the tracker was told
    tables = sorted((file for file in folder.iterdir() if file.suffix in _TABLES and file.name != own), key=_results_first)
    drawn: Sequence[Path] = []
    try:
        drawn = draw() if draw is not None else []
    except Exception as error:  # whoever draws for the user says it, too
        log.warning("tracker=%s: no figure (%s)", tracker.name, first_line(error))
    tracked.files([*tables, *(file for file in drawn if file not in tables)])


def _results_first(file: Path) -> tuple[bool, str]:
    return file.name != "results.csv", file.name
