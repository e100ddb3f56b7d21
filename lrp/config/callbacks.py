"""What Hydra tells us about a multirun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

sweep_folder: Path | None = None


class RememberSweep(Callback):
    """Remember the folder of the multirun, so that its tables can be collected even when a job failed."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        global sweep_folder
        sweep_folder = Path(config.hydra.sweep.dir)
