"""What the command line does: the words checked, one job or the jobs of a sweep, and one sentence for whatever fails."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import lrp
from lrp.config import callbacks
from lrp.config.check import check_command_line
from lrp.config.explain import help_text
from lrp.config.paths import CONF
from lrp.config.plugins import say_once
from lrp.config.schema import register
from lrp.config.sweeps import is_second_try, sweep_name
from lrp.errors import InputError, OwnCodeError, first_line, one_line
from lrp.follower import follows, in_the_background
from lrp.stop import how_to_go_on, remember_folder

log = logging.getLogger(__name__)
DRAWING = "drawing the figure and writing the report"
_found: dict[tuple[str, ...] | None, tuple[int, float]] = {}  # of the jobs of a search, by their words: a sweeper may draw them again
warnings.filterwarnings(
    "ignore", r"\s*'hydra/launcher/ray' is validated against ConfigStore schema"
)  # our ray.yaml against the plugin's, which is wanted
register()


class JobFailed(RuntimeError):
    """A job of a sweep failed; its reason has been printed."""


def job(config: DictConfig) -> float | None:
    """One job in its Hydra run folder; what a sweeper that searches is to know of it (``optimise``).

    Raises:
        JobFailed: In a sweep, whose other jobs go on.
        SystemExit: With one sentence, where a single job failed.
    """
    from lrp.config.build import find_figure, make_job  # these load torch: after the words have been checked
    from lrp.figure.sweep import summarise  # torch as well
    from lrp.report.page import REPORT, write_report  # torch as well
    from lrp.results.run_folder import mean_of  # pandas, and torch as well

    logging.raiseExceptions = False  # a log that cannot be written (a full disk) is not what fails
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    searched = tuple(sorted(hydra_config.overrides.task)) if sweeping and config.optimise is not None else None
    try:
        callbacks.go_where_it_began(hydra_config)
        if sweeping and is_second_try(hydra_config, folder):
            log.info("this sweep began the job before; it goes on")
            config.resume = True
        if sweeping:
            _number_lines(f"[{callbacks.place_in_sweep(hydra_config.job.num)}] ")
        if searched in _found:
            number, value = _found[searched]
            log.info("the same words as those of job %d, whose %s counts again", number + 1, config.optimise)
            return value
        made = make_job(config, hydra_config)

        @cache
        def drawn() -> tuple[str, list[Path]]:
            log.info(DRAWING)
            text, paths = summarise(folder, find_figure(config))
            return text, [*paths, write_report([folder], folder / REPORT, _command())]

        rows = made.run(folder, group=sweep_name(hydra_config) if sweeping else None, draw=lambda: drawn()[1])
        if follows():
            return None
        if sweeping:
            log.info("done%s", callbacks.time_left(hydra_config.job.num))
        else:
            _tell(*drawn())
        if config.optimise is None:
            return None
        value = mean_of(rows, config.optimise)
        if searched is not None:
            _found[searched] = hydra_config.job.num, value
        return value
    except (Exception, SystemExit) as error:  # whatever classes of the user's raise
        reason = reason_of(error, folder, {"cache_dir": config.cache_dir})
    if sweeping:  # the other jobs go on; Hydra ends with exit code 1
        log.error("%s failed: %s", ", ".join(hydra_config.overrides.task) or "the job", reason)
        raise JobFailed(f"job {hydra_config.job.num}: {reason}")
    for handler in logging.getLogger().handlers:  # the console is told below; ``lrp collect`` reads the file
        if isinstance(handler, logging.FileHandler):
            handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, "the run failed: %s", (reason,), None))
    print(f"lrp: {reason}", file=sys.stderr)
    raise SystemExit(1)


def _number_lines(prefix: str) -> None:
    """Let each line on the console say which job it is of: jobs may run beside each other."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setFormatter(logging.Formatter(prefix + "%(message)s"))


def reason_of(error: BaseException, folder: Path | None, places: Mapping[str, str] | None = None) -> str:
    """Why something failed, in one sentence; where it was not foreseen, with the path of a log that holds the traceback. Of ``places``,
    options that name folders, the one is named in which a file could not be read or written."""
    if isinstance(error, InputError) and not isinstance(error, OwnCodeError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None and not _foreign(error):
        place = str(error.filename or folder or "a file")
        for name, value in (places or {}).items():
            if Path(place).absolute().is_relative_to(Path(value).absolute()):
                place = f"{name}={value}" if place == value else f"{name}={value}: {place}"
                break
        return one_line(f"{place}: {os.strerror(error.errno)}")
    said = str(error) if isinstance(error, OwnCodeError) else f"{type(error).__name__}: {first_line(error)[:300]}"
    text = "".join(traceback.format_exception(error))
    for place in (folder, Path(tempfile.gettempdir())):
        try:
            if place is not None and place.is_dir():
                handle, name = tempfile.mkstemp(prefix="error-", suffix=".log", dir=place)
                with open(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                return one_line(f"{said} (the traceback is in {name})")
        except OSError:
            continue
    return one_line(said)


def _foreign(error: OSError) -> bool:
    """Whether an error was raised neither by lrp nor by a library that lrp called: by code of the user's."""
    own, libraries = str(Path(__file__).parent), ("site-packages", f"python3.{sys.version_info.minor}", "<frozen")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(own):
            return False
        if not any(part in frame.filename for part in libraries):
            return True
    return False


def _collect_sweep(config: DictConfig) -> None:
    """The table and the figure of a multirun, from whatever its jobs finished."""
    from lrp.config.build import find_figure, track_sweep  # loads torch, after the words have been checked
    from lrp.figure.sweep import summarise_sweep  # torch as well
    from lrp.report.page import REPORT, write_report  # torch as well

    folder = Path(config.hydra.sweep.dir)
    print(DRAWING, file=sys.stderr)
    try:
        text, paths = summarise_sweep(folder, find_figure(config))
        paths.append(write_report([folder], folder / REPORT, _command()))
        _tell(text, paths)
        track_sweep(config, folder, paths)
    except Exception as error:  # the jobs have told theirs
        print(f"lrp: {reason_of(error, folder)}", file=sys.stderr)


def _command() -> str:
    """What was typed."""
    return shlex.join(["lrp", "run", *sys.argv[1:]])


def _tell(text: str, paths: list[Path]) -> None:
    if text:
        print(text)
    print(*paths, sep="\n")


def run() -> None:
    """Check the words, then run what they ask for.

    Raises:
        SystemExit: With one sentence, where something failed.
    """
    words = sys.argv[1:]
    if "--help" in words or "-h" in words:
        print(help_text("python -m lrp.run" if sys.argv[0].endswith("run.py") else "lrp run"))
        return
    if "--version" in words:
        print(f"lrp {lrp.__version__}")
        return
    with in_the_background(words) as own:
        _run(own)


def _run(words: list[str]) -> None:
    """The same, once these words are known to ask for jobs.

    Raises:
        SystemExit: With one sentence, where something failed.
    """
    try:
        sys.argv[1:] = check_command_line(words, lambda: print("loading torch and checking all values", file=sys.stderr, flush=True))
    except Exception as error:
        print(f"lrp: {reason_of(error, None)}", file=sys.stderr)
        raise SystemExit(2) from None
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would print otherwise
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")  # of joblib's helper, when somebody stops a sweep
    callbacks.tell_folder = remember_folder
    say_once()
    entry = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    failed = None
    try:
        entry()
    except JobFailed:
        failed = 1
    except Exception as error:  # before or after the job: a folder that cannot be made, a launcher that fails or whose job was killed
        nothing = str(error) == "No trials are completed yet."  # Optuna's ValueError, without which trials failed
        go_on = "" if callbacks.multirun is None or nothing or isinstance(error, InputError) else f"; {how_to_go_on(words)}"
        given = dict(word.split("=", 1) for word in words if word.startswith(("hydra.run.dir=", "hydra.sweep.dir=")))
        reason = "no trial finished" if nothing else reason_of(error, callbacks.folder(), given)
        print(f"lrp: {reason}{go_on}", file=sys.stderr)
        failed = 1
    finally:
        callbacks.tell_folder = None
    if callbacks.multirun is not None and not follows() and Path(callbacks.multirun.hydra.sweep.dir).is_dir():
        _collect_sweep(callbacks.multirun)
    if failed:
        raise SystemExit(failed)
