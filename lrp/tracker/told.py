"""What a tracker was told of a job, kept in the run folder: a resumed job goes on with its own run, and tells nothing twice."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lrp.errors import first_line
from lrp.files import write_text

log = logging.getLogger(__name__)


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
    """

    file: Path | None
    id: str = ""
    name: str = ""
    group: str = ""
    step: int = 0
    rows: int = 0
    epochs: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, resume: bool) -> Told:
        """What the file says of a run, where the job is a resumed one and the file can be used; otherwise a run that has not begun."""
        if not resume or not file.is_file():
            return cls(file)
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            told = cls(file, **values)
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be used (%s); the tracker begins a new run", file, first_line(error))
            return cls(file)
        texts = (told.id, told.name, told.group)
        numbers = (told.step, told.rows, *told.epochs.values()) if isinstance(told.epochs, dict) else (None,)
        if all(isinstance(text, str) for text in texts) and all(type(number) is int and number >= 0 for number in numbers):
            return told
        log.warning("%s holds other values than lrp writes; the tracker begins a new run", file)
        return cls(file)

    def write(self) -> None:
        """Keep it."""
        if self.file is not None:
            values = asdict(self)
            del values["file"]
            write_text(self.file, json.dumps(values, indent=1) + "\n")

    def forget(self) -> None:
        """Nothing of it has arrived where the run is now: it is told again."""
        self.step, self.rows, self.epochs = 0, 0, {}
