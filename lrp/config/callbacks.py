"""What Hydra tells us about a run and about a multirun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lrp.config.words import word

multirun: DictConfig | None = None
single: DictConfig | None = None
tell_folder: Callable[[str], None] | None = None  # gets the word that names the folder, before the first job


class RememberSweep(Callback):
    """Remember the configuration of the run or multirun, so that its tables can be collected even when a job failed."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before a single job."""
        global single
        single = config
        if tell_folder is not None:
            tell_folder(word("hydra.run.dir", str(config.hydra.run.dir)))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job."""
        global multirun
        multirun = config
        if tell_folder is not None:
            tell_folder(word("hydra.sweep.dir", str(config.hydra.sweep.dir)))


def folder() -> Path | None:
    """The folder of the run or the multirun, where there is one by now."""
    if multirun is not None:
        return Path(multirun.hydra.sweep.dir)
    return None if single is None else Path(single.hydra.run.dir)
