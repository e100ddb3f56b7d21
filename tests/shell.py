"""Command lines, in a process of their own or checked alone."""

import subprocess
import sys
import threading

import pytest

from lrp.config.build import compose_job
from lrp.config.check import check_command_line
from lrp.config.schema import register
from lrp.job.running import running


def check_refused(words, sentence, capsys) -> str:
    """This command line ends at once, with status 2 and one line on stderr that holds the sentence; the line."""
    register()
    with pytest.raises(SystemExit) as stop:
        check_command_line(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("lrp: ") and sentence in error and "\n" not in error
    return error


def hold(folder, alone, ready):
    with running(folder, alone):
        ready.set()
        threading.Event().wait()  # until it is killed


QUICK = ["model.training.epochs=1", "model.width=0.03125", "calibration.images=64", "calibration.scoring_images=4", "threads=1"]


def command(cache, *words):
    return [sys.executable, "-m", "lrp.run", *QUICK, f"cache_dir={cache}", *words]


def run_here(cache, folder, *words):
    """A job in this process, without a command line of its own: a process costs seconds before it begins."""
    return compose_job(*QUICK, f"cache_dir={cache}", *words).run(folder)


def run_lrp(cache, *words, cwd, code=0):
    done = subprocess.run(command(cache, *words), cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr
