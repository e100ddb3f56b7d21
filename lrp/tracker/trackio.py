"""trackio: W&B's terms in a local SQLite file, without an account (``trackio show`` opens its dashboard)."""

from __future__ import annotations

import contextlib
import io
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


@dataclass(frozen=True)
class TrackioTracker:
    """One trackio run per job, in one store for all: what tracker=wandb writes, with the summary as the last step of a run.

    Attributes:
        project: Of trackio; None: lrp.
        dir: The folder of the store; None: TRACKIO_DIR, or outputs/trackio. trackio reads it when it is imported: one for a process.
        tags: Beside the names of the parts; trackio has none, so they stand in the configuration.
    """

    name: ClassVar[str] = "trackio"
    active: ClassVar[bool] = True

    project: str | None = None
    dir: str | None = None
    tags: Sequence[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        needs("trackio", "trackio")
        object.__setattr__(self, "project", option("project", self.project, None, "lrp"))
        object.__setattr__(self, "dir", option("dir", self.dir, "TRACKIO_DIR", "outputs/trackio"))
        check_tags(self.tags)

    @contextlib.contextmanager
    def start(self, settings: Mapping[str, Any], chosen: Mapping[str, str], folder: Path, group: str | None) -> Iterator[Tracked]:
        """A run of the job in ``folder`` while the context lasts; ``chosen`` names the option of each group, ``group`` the sweep."""
        told = Told.read(folder / "trackio.json", settings.get("resume") is True)
        try:
            run = self._init(settings, chosen, told, group)
        except Exception as error:
            log.warning("tracker=trackio: no run could be started (%s); the job goes on without it", first_line(error))
            yield NoTracker()
            return
        sink = _TrackioSink(run)
        try:
            yield Writing("trackio", sink, told)
        finally:
            quietly("trackio", sink.finish)
            told.step = max(told.step, sink.step)
            quietly("trackio", told.ended)

    def _init(self, settings: Mapping[str, Any], chosen: Mapping[str, str], told: Told, group: str | None) -> Any:
        place = Path(str(self.dir)).expanduser().resolve()
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError("tracker.dir", place, f"it cannot be made ({error.strerror})") from error
        before = os.environ.get("TRACKIO_DIR")
        os.environ["TRACKIO_DIR"] = str(place)
        try:
            # optional: it reads TRACKIO_DIR as it is imported
            import trackio

            # optional: as above
            from trackio.utils import TRACKIO_DIR
        finally:  # a process that this one starts is to find what its user set
            os.environ.pop("TRACKIO_DIR")
            if before is not None:
                os.environ["TRACKIO_DIR"] = before

        if Path(TRACKIO_DIR) != place:
            log.warning("tracker.dir=%s: trackio was imported before and writes to %s", place, TRACKIO_DIR)
        told.named(chosen, settings, group)
        # a run is found again by its name alone; two jobs may begin in one minute
        told.id = told.id or f"{told.name}; {os.urandom(3).hex()}"
        config = {**flatten(settings, "_"), **chosen, "tags": tags(chosen, check_tags(self.tags))}
        with _silent():
            run = trackio.init(
                project=str(self.project), name=told.id, group=told.group, resume="allow", embed=False,
                config={name: value for name, value in config.items() if not name.startswith("_")},
            )  # fmt: skip
        told.write()
        log.info(
            "trackio: project %s in %s (to look at it: TRACKIO_DIR=%s trackio show)",
            self.project,
            TRACKIO_DIR,
            shlex.quote(str(TRACKIO_DIR)),
        )
        return run


class _TrackioSink:
    """One run in trackio's terms."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.numbers: dict[str, float] = {}
        self.step = 0

    def define(self, metric: str, x: str | None) -> None:
        """What is drawn over what is chosen in trackio's dashboard."""

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Values of one step."""
        self.step = step + 1
        self.run.log(dict(values), step=step)

    def summary(self, values: Mapping[str, float]) -> None:
        """Logged when the run ends."""
        self.numbers = dict(values)

    def finish(self) -> None:
        """End the run, with its summary as the last step."""
        if self.numbers:
            self.run.log({f"summary/{name}": value for name, value in self.numbers.items()}, step=self.step)
            self.step += 1
        # optional: it is imported by then
        import trackio

        with _silent():
            trackio.finish()  # the run of trackio.init, which it would end once more at exit

    def image(self, path: Path) -> Any:
        """A picture that can be logged."""
        # optional: it is imported by then
        import trackio

        return trackio.Image(str(path))

    def page(self, path: Path) -> Any:
        """A page of HTML that can be logged, as it is."""
        # optional: it is imported by then
        import trackio

        return trackio.Html(str(path), inject=False)

    def table(self, table: pd.DataFrame) -> Any:
        """A table that can be logged."""
        # optional: it is imported by then
        import trackio

        return trackio.Table(dataframe=table)

    def artifact(self, kind: str, paths: Sequence[Path], aliases: Sequence[str], about: Mapping[str, Any]) -> None:
        """A version of ``<kind>-<id of the run>``."""
        # optional: it is imported by then
        import trackio

        artifact = trackio.Artifact(f"{kind}-{self.run.id}", type=kind, metadata=dict(about))
        for path in paths:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact, aliases=list(aliases))


def _silent() -> contextlib.redirect_stdout[io.StringIO]:
    """trackio prints how to open its dashboard, for every run."""
    return contextlib.redirect_stdout(io.StringIO())
