"""Jobs that know of one another."""

import multiprocessing
import os
import signal

import pytest
from holding import hold

from lrp.errors import InputError
from lrp.job.running import running


def files(folder):
    return sorted(file.name for file in (folder / "running").glob("*.job"))


def test_ordinary_jobs_run_beside_one_another(tmp_path):
    with running(tmp_path, alone=False), running(tmp_path, alone=False), running(tmp_path, alone=False):
        assert len(files(tmp_path)) == 3
    assert files(tmp_path) == []
    with running(tmp_path, alone=True):
        assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("first, second", [(True, True), (True, False), (False, True)])
def test_a_job_that_measures_runs_alone(tmp_path, first, second):
    with running(tmp_path, alone=first):
        with pytest.raises(InputError, match="evaluation.latency=true") as error, running(tmp_path, alone=second):
            pass
        assert "\n" not in str(error.value) and len(files(tmp_path)) == 1
    with running(tmp_path, alone=second):
        pass
    assert files(tmp_path) == []


def test_a_job_that_fails_is_no_longer_running(tmp_path):
    with pytest.raises(KeyError), running(tmp_path, alone=True):
        raise KeyError
    with running(tmp_path, alone=True):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
def test_a_killed_job_blocks_nobody(tmp_path, alone):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=hold, args=(tmp_path, alone, ready))
    other.start()
    try:
        while not ready.wait(1):
            assert other.is_alive()
        with pytest.raises(InputError), running(tmp_path, alone=True):
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    left = files(tmp_path)
    assert len(left) == 1
    with running(tmp_path, alone=True):
        assert len(files(tmp_path)) == 1
    assert files(tmp_path) == []
