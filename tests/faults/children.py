"""Command lines of lrp as children of a process that has already imported it: a fork costs no import, and is killed by its id."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

QUICK = [
    "dataset=mnist_small", "model.width=0.03125", "model.training.epochs=1", "calibration.images=64", "calibration.scoring_images=4",
    "threads=1", "device=cpu", "tracker=none",
]  # fmt: skip
PATIENCE = [1.0]  # times as long as on a core of its own a run may take; the campaign's --patience
STUDIES = ("study", "experiment")  # that take no option of a model or of the calibration


class Ended(NamedTuple):
    """How a child ended: its exit code (negative: the signal; None: it took too long and was killed) and what it printed."""

    code: int | None
    text: str

    @property
    def told(self) -> list[str]:
        """The sentences that say what failed."""
        return [line for line in self.text.splitlines() if line.startswith("lrp: ") or "failed: " in line]


def quick(*words: str) -> list[str]:
    """Words after the quick defaults, of which they replace those of the same name."""
    names = {word.lstrip("+~").split("=")[0] for word in words}
    study = any(name.split(".")[0] in STUDIES for name in names)
    kept = [
        word
        for word in QUICK
        if word.split("=")[0] not in names
        and not ("model" in names and word.startswith("model.width"))  # which other networks do not have
        and not (study and word.startswith(("model", "calibration", "dataset")))
    ]
    return [*(word for word in words if word == "-m"), *kept, *(word for word in words if word != "-m")]


def warm_up() -> None:
    """Import all that a job imports, by running one, and read the embedded digits once. No thread is started."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import matplotlib

    matplotlib.use("Agg")
    import torch
    from omegaconf import OmegaConf

    import lrp.command  # noqa: F401
    from lrp.config.build import compose_job, find_figure
    from lrp.config.check import check_command_line
    from lrp.figure.sweep import summarise

    torch.set_num_threads(1)
    check_command_line(quick())
    with tempfile.TemporaryDirectory() as folder:
        words = quick("scorer=perturbation", "sparsity.grid=[0.5]", "save=true", f"cache_dir={folder}/cache")
        job = compose_job(*words)
        job.run(Path(folder, "run"))
        summarise(Path(folder, "run"), find_figure(OmegaConf.create({"study": None})))


def start(words: Sequence[str], output: Path, before: Callable[[], None] | None = None) -> int:
    """Fork a child that does what ``python -m lrp.run words`` does, after ``before``; its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, file), (2, file)):
            os.dup2(target, stream)
        if before is not None:
            before()
        code = _main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _main(words: Sequence[str]) -> int:
    from lrp.run import main

    sys.argv = ["lrp.run", *words]
    try:
        main()
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1


def wait(child: int, seconds: float = 600) -> int | None:
    """The exit code; None where it still runs after so long."""
    end, pause = time.monotonic() + seconds, 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def run(words: Sequence[str], output: Path, seconds: float = 120, before: Callable[[], None] | None = None) -> Ended:
    """Run a command line to its end."""
    output.unlink(missing_ok=True)
    child = start(words, output, before)
    code = wait(child, seconds * PATIENCE[0])
    if code is None:
        kill(child)
    return Ended(code, output.read_text(errors="replace") if output.exists() else "")


def files_below(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file below folders, with its size and the time of its last change."""
    found = {}
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                try:
                    stat = os.lstat(os.path.join(place, name))
                except FileNotFoundError:
                    continue
                found[Path(place, name)] = stat.st_size, stat.st_mtime_ns
    return found


def leftovers(*folders: Path) -> list[Path]:
    """Files that nobody needs any more once a run is complete: temporary ones, and states of what has been finished."""
    unfinished = (".job", ".unfinished.pt", ".partial")
    return [
        file for file in files_below(*folders)
        if (file.name.startswith(".") and ".hydra" not in file.parts) or file.name.endswith(unfinished)
        or file.name.startswith("unfinished") or "states" in file.parts[-2:-1]
    ]  # fmt: skip
