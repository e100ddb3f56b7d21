"""Weights & Biases."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd

from lrp.errors import InputError, first_line
from lrp.files import flatten
from lrp.tracker.base import Tracked
from lrp.tracker.none import NoTracker

log = logging.getLogger(__name__)

_FROM_USER = frozenset(name for name in os.environ if name.startswith("WANDB_"))


@dataclass(frozen=True)
class WandbTracker:
    """One Weights & Biases run per job, grouped by sweep: the settings flat, one step per sparsity, results.csv as an artifact.

    ``mode`` is offline (no account, nothing leaves the machine), online or disabled. Online without a key or without a
    network becomes offline, with one line that says so: a job never waits for its log, nor dies for it.
    """

    name: ClassVar[str] = "wandb"
    project: str = "lrp"
    mode: Literal["offline", "online", "disabled"] = "offline"

    def __post_init__(self) -> None:
        if self.mode not in ("offline", "online", "disabled"):
            raise InputError("tracker.mode", self.mode, "choose one of offline, online, disabled")

    @contextlib.contextmanager
    def start(self, settings: Mapping[str, Any], chosen: Mapping[str, str], folder: Path, group: str | None) -> Iterator[Tracked]:
        """A W&B run of the job in ``folder`` while the context lasts; ``chosen`` names the option of each group, ``group`` the sweep."""
        try:
            run = self._init({**flatten(settings, "_"), **chosen}, folder, group)
        except Exception as error:
            log.warning("tracker=wandb: no run could be started (%s); the job goes on without it", first_line(error))
            yield NoTracker()
            return
        failed = 1
        try:
            yield _WandbRun(run)
            failed = 0
        finally:
            _quietly(run.finish, exit_code=failed)

    def _init(self, config: dict[str, Any], folder: Path, group: str | None) -> Any:
        for name, place in (("WANDB_DATA_DIR", "data"), ("WANDB_CACHE_DIR", "cache")):  # staged here, not in the home folder
            if name not in _FROM_USER:
                os.environ[name] = str((folder / "wandb" / place).resolve())
        # optional: it reads its settings as it is imported, and slowly
        import wandb

        mode = self.mode
        if mode == "online" and not wandb.api.api_key:
            log.warning("tracker.mode=online: there is no W&B key (wandb login makes one); the run stays offline in %s", folder)
            mode = "offline"
        options: dict[str, Any] = {
            "project": self.project,
            "group": group,
            "config": config,
            "dir": str(folder),
            "reinit": "finish_previous",
            "settings": wandb.Settings(silent=True, console="off", init_timeout=30),
        }
        try:
            return wandb.init(**options, mode="online" if mode == "online" else "disabled" if mode == "disabled" else "offline")
        except Exception as error:
            if mode != "online":
                raise
            log.warning("tracker.mode=online: W&B cannot be reached (%s); the run stays offline in %s", first_line(error), folder)
            return wandb.init(mode="offline", **options)


class _WandbRun:
    """A job's view of a run: a failure to log is said and otherwise ignored."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def rows(self, rows: pd.DataFrame) -> None:
        """The rows that an earlier, killed run had finished."""
        for row in rows.to_dict("records"):
            _quietly(self.run.log, _numbers(row))

    def row(self, row: Mapping[str, Any], layers: pd.DataFrame | None) -> None:
        # optional: it reads its settings as it is imported, and slowly
        import wandb

        if layers is None:
            _quietly(self.run.log, _numbers(row))
            return

        ranks = layers.groupby("layer", sort=False)[["kept", "full"]].sum()
        by_layer = {f"rank/{name}": int(kept) for name, kept in ranks["kept"].items()}
        _quietly(lambda: self.run.log({**_numbers(row), **by_layer, "ranks": wandb.Table(dataframe=ranks.reset_index())}))

    def file(self, path: Path) -> None:
        # optional: it reads its settings as it is imported, and slowly
        import wandb

        def log_file() -> None:
            artifact = wandb.Artifact(f"results-{self.run.id}", type="results")
            artifact.add_file(str(path))
            self.run.log_artifact(artifact)

        _quietly(log_file)


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if isinstance(value, (int, float)) and value == value}


def _quietly(action: Any, *args: Any, **kwargs: Any) -> None:
    try:
        action(*args, **kwargs)
    except Exception as error:
        log.warning("tracker=wandb: not logged (%s)", first_line(error))
