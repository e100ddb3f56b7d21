"""What Hydra tells us about a run and about a multirun."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from lrp.config.parts import plain
from lrp.config.plugins import BASIC
from lrp.config.words import combinations, parse, word
from lrp.errors import InputError

STARTED = "LRP_SWEEP"  # when a multirun began, and how many jobs it has

multirun: DictConfig | None = None
single: DictConfig | None = None
tell_folder: Callable[[str], None] | None = None  # gets the word that names the folder, before the first job


def count_jobs(config: DictConfig) -> int | None:
    """How many jobs a multirun has: all combinations of its values, or the trials of a search; None where the sweeper alone knows."""
    sweeper = config.hydra.sweeper
    if sweeper._target_ != BASIC:
        return sweeper.get("n_trials")
    words = [*(f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()), *config.hydra.overrides.task]
    return combinations(parse(words, GlobalHydra.instance().config_loader()))


def place_in_sweep(number: int) -> str:
    """Which job of how many one is, counted from 1."""
    jobs = _started()[1]
    return f"job {number + 1}" + (f" of {jobs}" if jobs is not None else "")


def time_left(number: int) -> str:
    """About how long the jobs after this one will take, from how long those up to it took: they start in order."""
    began, jobs = _started()
    if began is None or jobs is None or number + 1 >= jobs:
        return ""
    minutes = (time.time() - began) / (number + 1) * (jobs - number - 1) / 60
    return f", about {minutes:.0f} min left" if minutes >= 1 else f", about {60 * minutes:.0f} s left"


def _started() -> tuple[float | None, int | None]:
    began, _, jobs = os.environ.get(STARTED, "").partition(" ")
    return float(began) if began else None, int(jobs) if jobs else None


def _tell(option: str, folder: str, more: str = "") -> None:
    print(f"folder: {folder}{more}", flush=True)
    if tell_folder is not None:
        tell_folder(word(option, folder))


class _Told(JobReturn):
    """What a job that failed gives back: its reason has been told, and Hydra would print its words once more."""

    @property
    def return_value(self) -> Any:
        """Raises what the job raised."""
        raise self._return_value


class RememberSweep(Callback):
    """Remember the configuration of the run or multirun, so that its tables can be collected even when a job failed."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before a single job."""
        global single
        single = config
        _tell("hydra.run.dir", str(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job."""
        global multirun
        multirun = config
        jobs = count_jobs(config)
        os.environ[STARTED] = f"{time.time()} {jobs or ''}"  # jobs in processes of their own read it
        _tell("hydra.sweep.dir", str(config.hydra.sweep.dir), "" if jobs is None else f", {jobs} jobs")
        _name_from_the_root(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Called by Hydra after each job."""
        if job_return.status == JobStatus.FAILED:
            job_return.__class__ = _Told


def _name_from_the_root(config: DictConfig) -> None:
    """Tell the jobs of a multirun their folder by its whole path: a launcher may start them in another folder, on another machine."""
    raw = str(plain(config.hydra.sweep, resolve=False)["dir"])  # Hydra makes the path of each job from it, from what is asked of that job
    if not Path(str(config.hydra.sweep.dir)).is_absolute():
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra.append(word("hydra.sweep.dir", str(Path.cwd() / raw)))


def go_where_it_began(hydra: Any) -> None:
    """Go to the folder in which the command was given, to which cache_dir and the paths of data are relative.

    Raises:
        InputError: Where this machine does not have it.
    """
    began = Path(str(hydra.runtime.cwd))
    if hydra.job.chdir or began == Path.cwd():
        return
    try:
        os.chdir(began)
    except OSError as error:
        raise InputError(
            f"{platform.node()} has no folder {began}, in which the sweep was started; all machines of a sweep see it under the same path"
        ) from error


def folder() -> Path | None:
    """The folder of the run or the multirun, where there is one by now."""
    if multirun is not None:
        return Path(multirun.hydra.sweep.dir)
    return None if single is None else Path(single.hydra.run.dir)
