"""What Hydra tells us about a multirun."""

from __future__ import annotations

from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

multirun: DictConfig | None = None


class RememberSweep(Callback):
    """Remember the configuration of the multirun, so that its tables can be collected even when a job failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job."""
        global multirun
        multirun = config
