"""Command lines, in a process of their own or checked alone."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import write_parquet

from lrp.config.build import compose_job
from lrp.config.check import check_command_line
from lrp.config.schema import register


def check_refused(words, sentence, capsys) -> str:
    """This command line ends at once, with status 2 and one line on stderr that holds the sentence; the line."""
    register()
    with pytest.raises(SystemExit) as stop:
        check_command_line(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("lrp: ") and sentence in error and "\n" not in error
    return error


QUICK = ["model.training.epochs=1", "model.width=0.03125", "calibration.images=64", "calibration.scoring_images=4", "threads=1"]


def digits(cache):
    """Words for 300 noisy images that look like MNIST's, in the folder of the cache. The digits that come with lrp are text, which takes
    each process two seconds to read, and twelve times as many."""
    folder = cache / "digits"
    if not folder.exists():
        generator = np.random.default_rng(0)
        labels = np.arange(300) % 10
        pixels = (generator.integers(0, 128, (300, 28, 28)) + 12 * labels[:, None, None]).astype(np.uint8)
        write_parquet(folder, "train.parquet", pixels[:240], labels[:240], "image")
        write_parquet(folder, "test.parquet", pixels[240:], labels[240:], "image")
    return ["dataset=mnist", f"dataset.path={folder}"]


def command(cache, *words):
    """The command line of a quick job; words that name a data set replace the one it has."""
    given = {word.partition("=")[0] for word in words}
    data = [] if "dataset" in given else digits(cache)
    usual = [word for word in (*QUICK, *data, f"cache_dir={cache}") if word.partition("=")[0] not in given]
    return [sys.executable, "-m", "lrp.run", *usual, *words]


def run_here(cache, folder, *words):
    """A job in this process, without a command line of its own: a process costs seconds before it begins."""
    return compose_job(*command(cache, *words)[3:]).run(folder)


def run_lrp(cache, *words, cwd, code=0):
    done = subprocess.run(command(cache, *words), cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr
