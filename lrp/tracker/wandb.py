"""Weights & Biases."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from lrp.errors import InputError, first_line
from lrp.files import flatten
from lrp.tracker.base import Tracked
from lrp.tracker.names import tags
from lrp.tracker.none import NoTracker
from lrp.tracker.options import check_tags, needs, option
from lrp.tracker.told import Told
from lrp.tracker.writing import Writing, quietly

log = logging.getLogger(__name__)

MODES = ("offline", "online", "disabled")
_FROM_USER = frozenset(name for name in os.environ if name.startswith("WANDB_"))


@dataclass(frozen=True)
class WandbTracker:
    """One Weights & Biases run per job: the settings flat, a step for each row and each epoch, figures, tables and networks.

    Online without a key or without a network becomes offline, with one line that says so: a job never waits for its log, nor dies
    for it. A resumed job goes on with its own run, whose id the run folder keeps (wandb.json).

    Attributes:
        project: Of W&B; None: WANDB_PROJECT, or lrp.
        entity: The account or team; None: WANDB_ENTITY, or the one that the key belongs to.
        mode: offline (no account, nothing leaves the machine), online or disabled; None: WANDB_MODE, or offline.
        dir: Where the folder ``wandb`` is written; None: WANDB_DIR, or the run folder.
        tags: Beside the names of the parts; those of WANDB_TAGS (divided by commas) are added.
    """

    name: ClassVar[str] = "wandb"
    active: ClassVar[bool] = True

    project: str | None = None
    entity: str | None = None
    mode: str | None = None
    dir: str | None = None
    tags: Sequence[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        needs("wandb", "wandb")
        place = "WANDB_MODE" if self.mode is None else "tracker.mode"
        for name, default in {"project": "lrp", "entity": None, "mode": "offline", "dir": None}.items():
            object.__setattr__(self, name, option(name, getattr(self, name), f"WANDB_{name.upper()}", default))
        if self.mode not in MODES:
            raise InputError(place, self.mode, f"choose one of {', '.join(MODES)}")
        check_tags(self.tags)

    @contextlib.contextmanager
    def start(self, settings: Mapping[str, Any], chosen: Mapping[str, str], folder: Path, group: str | None) -> Iterator[Tracked]:
        """A W&B run of the job in ``folder`` while the context lasts; ``chosen`` names the option of each group, ``group`` the sweep."""
        told = Told.read(folder / "wandb.json", settings.get("resume") is True)
        told.named(chosen, settings, group)
        try:
            run = self._init({**flatten(settings, "_"), **chosen}, chosen, folder, told)
        except Exception as error:
            log.warning("tracker=wandb: no run could be started (%s); the job goes on without it", first_line(error))
            yield NoTracker()
            return
        failed = 1
        try:
            yield Writing("wandb", _WandbSink(run), told)
            failed = 0
        finally:
            quietly("wandb", lambda: run.finish(exit_code=failed))
            quietly("wandb", told.ended)

    def _init(self, config: dict[str, Any], chosen: Mapping[str, str], folder: Path, told: Told) -> Any:
        place = Path(self.dir or folder).expanduser()
        place.mkdir(parents=True, exist_ok=True)  # W&B would write to the temporary folder of the system
        for name, part in (("WANDB_DATA_DIR", "data"), ("WANDB_CACHE_DIR", "cache")):  # staged here, not in the home folder
            if name not in _FROM_USER:
                os.environ[name] = str((place / "wandb" / part).resolve())
        # optional: it reads its settings as it is imported, and slowly
        import wandb

        mode: Any = self.mode
        if mode == "online" and not wandb.api.api_key:
            log.warning("tracker.mode=online: there is no W&B key (wandb login makes one); the run stays offline in %s", place)
            mode = "offline"
        own = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
        # what the user, or the agent of a sweep, says in the environment is W&B's to read
        named = {"name": ("WANDB_NAME", told.name), "group": ("WANDB_RUN_GROUP", told.group)}
        named |= {"id": ("WANDB_RUN_ID", told.id), "resume": ("WANDB_RESUME", "allow" if told.id else "")}
        options: dict[str, Any] = {
            **{option: value for option, (variable, value) in named.items() if value and not os.environ.get(variable)},
            "project": self.project,
            "entity": self.entity,
            "tags": tags(chosen, [*check_tags(self.tags), *own]),
            "config": config,
            "dir": str(place),
            "reinit": "finish_previous",
            "settings": _settings(wandb),
        }
        written = _last_written(place, told.id)
        try:
            run = wandb.init(mode=mode, **options)
        except Exception as error:
            if mode != "online":
                raise
            log.warning("tracker.mode=online: W&B cannot be reached (%s); the run stays offline in %s", first_line(error), place)
            mode = "offline"
            run = wandb.init(mode=mode, **options)
        if mode == "disabled":
            told.file = None
        elif mode == "online":
            if not run.resumed:  # W&B does not know it: it was offline before, and has not been synced
                told.step, told.rows, told.epochs, told.recent = 0, 0, {}, []
            told.keep(lambda state: state["step"] <= run.step)
            told.step = max(told.step, run.step)
        else:
            told.keep(lambda state: state["time"] < written)
        told.id = run.id
        told.write()
        if mode == "online":
            log.info("wandb: %s", run.url)
        elif mode == "offline":
            log.info("wandb: offline, in %s (to upload it: wandb sync %s)", place, shlex.quote(str(Path(run.dir).parent)))
        return run


def _settings(wandb: Any) -> Any:
    quiet = {"silent": True, "console": "off", "init_timeout": 30}
    try:
        return wandb.Settings(**quiet, x_transaction_log_flush_interval=1.0)  # W&B keeps 15 seconds in memory, which a kill loses
    except ValueError:  # an older version, which writes 32 KiB at a time
        return wandb.Settings(**quiet)


def _last_written(place: Path, run: str) -> float:
    """When W&B wrote to the log of an offline run for the last time (seconds since 1970), less what a step takes to get there."""
    files = place.glob(f"wandb/offline-run-*-{run}/run-{run}.wandb") if run else ()
    return max((file.stat().st_mtime for file in files), default=0.0) - 0.5


class _WandbSink:
    """One run in W&B's terms."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def define(self, metric: str, x: str | None) -> None:
        """Draw a metric over another; its last value is no summary."""
        self.run.define_metric(metric.replace(".", "\\."), step_metric=x, summary="none")  # a dot would divide the name

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Values of one step, written at once."""
        self.run.log(dict(values), step=step, commit=True)

    def summary(self, values: Mapping[str, float]) -> None:
        """The columns of the table of runs."""
        self.run.summary.update(dict(values))

    def image(self, path: Path) -> Any:
        """A picture that can be logged."""
        # optional: it reads its settings as it is imported, and slowly
        import wandb

        return wandb.Image(str(path))

    def page(self, path: Path) -> Any:
        """A page of HTML that can be logged, as it is."""
        # optional: it reads its settings as it is imported, and slowly
        import wandb

        return wandb.Html(path.read_text(encoding="utf-8"), inject=False, data_is_not_path=True)

    def table(self, table: pd.DataFrame) -> Any:
        """A table that can be logged."""
        # optional: it reads its settings as it is imported, and slowly
        import wandb

        return wandb.Table(dataframe=table, allow_mixed_types=True)

    def artifact(self, kind: str, paths: Sequence[Path], aliases: Sequence[str], about: Mapping[str, Any]) -> None:
        """A version of ``<kind>-<id of the run>``."""
        # optional: it reads its settings as it is imported, and slowly
        import wandb

        artifact = wandb.Artifact(f"{kind}-{self.run.id}", type=kind, metadata=dict(about))
        for path in paths:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact, aliases=["latest", *aliases])
