"""What a tracker was told of a job, kept in the run folder: a resumed job goes on with its own run, and tells nothing twice."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lrp.errors import first_line
from lrp.files import write_text
from lrp.tracker.names import group_name, run_name

log = logging.getLogger(__name__)

_LARGEST = 2**20  # bytes of the file
_RECENT = 50  # steps that may not have reached the tracker's own file when a job is killed


@dataclass
class Told:
    """One run of a tracker.

    Attributes:
        file: Where this is kept; None: nowhere.
        id: Of the run, as the tracker names it; "": it has not begun.
        name: Of the run, as people read it.
        group: That it belongs to.
        step: How often something was logged.
        rows: How many rows of the table were logged.
        epochs: Of each training, by name, the last epoch that was logged.
        recent: The last steps, each with its ``time`` (seconds since 1970) and the step, rows and epochs after it; [] where the run was
            ended as it should be: everything has arrived.
    """

    file: Path | None
    id: str = ""
    name: str = ""
    group: str = ""
    step: int = 0
    rows: int = 0
    epochs: dict[str, int] = field(default_factory=dict)
    recent: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path, resume: bool) -> Told:
        """What the file says of a run, where the job is a resumed one and the file can be used; otherwise a run that has not begun."""
        if not resume or not file.is_file():
            return cls(file)
        try:
            reason = "it holds other values than lrp writes"
            if file.stat().st_size <= _LARGEST:
                told = cls(file, **json.loads(file.read_text(encoding="utf-8")))
                if told._sound():
                    return told
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            reason = first_line(error)
        log.warning("%s cannot be used (%s); the tracker begins a new run", file, reason)
        return cls(file)

    def _sound(self) -> bool:
        states = [{"step": self.step, "rows": self.rows, "epochs": self.epochs}, *self.recent]
        numbers = [number for state in states for number in (state["step"], state["rows"], *state["epochs"].values())]
        times = [state["time"] for state in self.recent]
        return (
            all(isinstance(text, str) for text in (self.id, self.name, self.group))
            and all(type(number) is int and number >= 0 for number in numbers)
            and all(isinstance(when, float) for when in times)
        )

    def named(self, chosen: Mapping[str, str], settings: Mapping[str, Any], group: str | None) -> None:
        """Give a run that has not begun its name, and its group: ``group``, or one by method, model and day."""
        if not self.name:
            now = datetime.now()
            self.name, self.group = run_name(chosen, settings, now), group or group_name(chosen, now)

    def logged(self) -> None:
        """A step was logged."""
        self.step += 1
        self.recent = [*self.recent, {"time": time.time(), "step": self.step, "rows": self.rows, "epochs": {**self.epochs}}][-_RECENT:]
        self.write()

    def ended(self) -> None:
        """The run was ended as it should be."""
        self.recent = []
        self.write()

    def write(self) -> None:
        """Keep it."""
        if self.file is not None:
            values = asdict(self)
            del values["file"]
            write_text(self.file, json.dumps(values, indent=1) + "\n")

    def keep(self, arrived: Callable[[dict[str, Any]], bool]) -> None:
        """Forget what did not arrive, so that it is told again; ``arrived`` says it of a step of ``recent``."""
        if not self.recent:
            return
        last = next((state for state in reversed(self.recent) if arrived(state)), {"step": 0, "rows": 0, "epochs": {}})
        self.step, self.rows, self.epochs, self.recent = last["step"], last["rows"], {**last["epochs"]}, []
