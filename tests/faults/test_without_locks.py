"""Two machines and one file system: where locks are refused, where they hold on each machine for itself, and under two mounts."""

import errno
import fcntl
import os
import subprocess

import pytest
from faults.children import quick, run, start, wait, warm_up
from faults.outcomes import Counts, compare, left_in

JOB = ["-m", "scorer=perturbation", "estimator=exact", "sparsity.grid=[0.5,0.9]"]

pytestmark = [pytest.mark.slow, pytest.mark.long]


def refused():
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = flock


def held_by_nobody():
    fcntl.flock = lambda *_: None


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """What an undisturbed run leaves."""
    warm_up()
    place = tmp_path_factory.mktemp("right")
    assert run([*quick(*JOB), f"cache_dir={place / 'cache'}", f"hydra.sweep.dir={place / 'run'}"], place / "log").code == 0
    return left_in(place / "run", place / "cache")


@pytest.fixture
def mounts(tmp_path):
    """One folder under two paths."""
    places = [tmp_path / name for name in ("a", "b")]
    for place in places:
        place.mkdir()
    done = subprocess.run(["mount", "--bind", *places], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount --bind: {done.stderr.strip()}")
    yield places
    subprocess.run(["umount", places[1]], check=True)


def together(right, folders, caches, tmp_path, before=None):
    """Start a process for each folder at once; nothing of what they leave differs from what one leaves alone."""
    children = [
        start([*quick(*JOB), "resume=true", f"cache_dir={cache}", f"hydra.sweep.dir={folder}"], tmp_path / f"{number}.log", before)
        for number, (folder, cache) in enumerate(zip(folders, caches))
    ]
    said = [(tmp_path / f"{number}.log") for number in range(len(children))]
    assert [wait(child) for child in children] == [0, 0], "".join(file.read_text() for file in said)
    counts = Counts("together")
    for folder, cache in zip(folders, caches):
        compare(right, left_in(folder, cache), counts, folder.name)
    assert not any(counts.numbers.values()), counts.examples


def test_two_sweeps_with_one_cache(right, tmp_path):
    """Scores and trainings are computed once or twice, and each is whole."""
    folders = [tmp_path / name / "run" for name in "ab"]
    together(right, folders, [tmp_path / "cache"] * 2, tmp_path, refused)


def test_one_sweep_that_two_machines_do(right, tmp_path):
    """Each row is stored once."""
    together(right, [tmp_path / "run"] * 2, [tmp_path / "cache"] * 2, tmp_path, held_by_nobody)


def test_one_sweep_under_two_mounts(right, mounts, tmp_path):
    together(right, [place / "run" for place in mounts], [place / "cache" for place in mounts], tmp_path)
