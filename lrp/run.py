"""The command line: ``python -m lrp.run group=option node.key=value``, with -m for a sweep."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lrp.config import callbacks
from lrp.config.check import check_command_line
from lrp.config.paths import CONF
from lrp.config.schema import register
from lrp.errors import InputError

log = logging.getLogger(__name__)
register()


class JobFailed(RuntimeError):
    """A job of a sweep failed; its reason has been printed."""


def job(config: DictConfig) -> None:
    """One job in its Hydra run folder.

    Raises:
        JobFailed: In a sweep, whose other jobs go on.
        SystemExit: With one sentence, where a single job failed.
    """
    from lrp.config.build import find_figure, make_job  # these load torch: after the words have been checked
    from lrp.figure.sweep import summarise  # torch as well

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    try:
        made = make_job(config, hydra_config)
        made.run(folder, group=Path(hydra_config.sweep.dir).name if sweeping else None)
        if not sweeping:
            _tell(*summarise(folder, find_figure(config)))
    except InputError as error:
        reason = str(error)
    except OSError as error:  # a full disk, a folder that cannot be written
        reason = f"{error.filename or folder}: {error.strerror or error}"
        log.debug("", exc_info=True)
    except Exception:
        reason = traceback.format_exc()
    else:
        return
    if sweeping:  # the other jobs go on; Hydra ends with exit code 1
        log.error("job %s (%s) failed: %s", hydra_config.job.num, ", ".join(hydra_config.overrides.task), reason)
        raise JobFailed(f"job {hydra_config.job.num}: {reason.strip().splitlines()[-1]}")
    print(f"lrp: {reason}", file=sys.stderr)
    raise SystemExit(1)


def _collect_sweep(config: DictConfig) -> None:
    """The table and the figure of a multirun, from whatever its jobs finished."""
    from lrp.config.build import find_figure  # loads torch, after the words have been checked
    from lrp.figure.sweep import summarise_sweep  # torch as well

    try:
        _tell(*summarise_sweep(Path(config.hydra.sweep.dir), find_figure(config)))
    except (InputError, OSError) as error:
        print(f"lrp: {error}", file=sys.stderr)


def _tell(text: str, paths: list[Path]) -> None:
    if text:
        print(text)
    print(*paths, sep="\n")


def main() -> None:
    """Check the words, then run what they ask for."""
    sys.argv[1:] = check_command_line(sys.argv[1:])
    entry = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    try:
        entry()
    finally:
        if callbacks.multirun is not None:
            _collect_sweep(callbacks.multirun)


if __name__ == "__main__":
    main()
