"""The command line: ``python -m lrp.run group=option node.key=value``, with -m for a sweep."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lrp.config import callbacks
from lrp.config.check import check_command_line
from lrp.config.paths import CONF
from lrp.config.schema import register

log = logging.getLogger(__name__)
register()


class JobFailed(RuntimeError):
    """A job of a sweep failed; its reason has been printed."""


def job(config: DictConfig) -> None:
    """One job in its Hydra run folder."""
    import traceback

    from lrp.config.build import make_job
    from lrp.errors import InputError

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    try:
        made = make_job(config)
        table = made.run(folder, group=Path(hydra_config.sweep.dir).name if sweeping else None)
        if not sweeping:
            print(folder / "results.csv", *made.summarise(table, folder), sep="\n")
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


def _collect_sweep(folder: Path) -> None:
    """The table and the figure of a multirun, from whatever its jobs finished."""
    from lrp.errors import InputError
    from lrp.figure.accuracy import accuracy_table
    from lrp.figure.sweep import summarise, summarise_study
    from lrp.results.collect import collect, study_of

    try:
        name = study_of(folder)
        if name is not None:
            print(*summarise_study(name, folder), sep="\n")
            return
        table = collect(sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: (len(path.name), path.name)))
    except (InputError, OSError) as error:
        print(f"lrp: {error}", file=sys.stderr)
        return
    paths = summarise(table, folder)
    print(accuracy_table(table))
    print(*paths, sep="\n")


def main() -> None:
    sys.argv[1:] = check_command_line(sys.argv[1:])
    entry = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    try:
        entry()
    finally:
        if callbacks.sweep_folder is not None:
            _collect_sweep(callbacks.sweep_folder)


if __name__ == "__main__":
    main()
