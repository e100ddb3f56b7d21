"""Ray on this machine with two workers, one of which is killed in mid-sweep."""

import os
import signal

import pandas as pd
import pytest
from cluster.lost import rows, sweep, sweep_that_loses_one

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="pip install 'lrp[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.cluster]

RAY = ["hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where an undisturbed sweep lies in ``calm``, of jobs with one thread, as Ray gives them."""
    place = tmp_path_factory.mktemp("ray")
    done = sweep(place, "calm", "threads=1")
    assert done.returncode == 0, done.stderr
    return place


def kill(job, _):
    os.kill(job, signal.SIGKILL)


def test_ray_begins_a_lost_job_again(place):
    """It goes on after its last row."""
    code, said = sweep_that_loses_one(place, "again", kill, *RAY)
    assert code == 0, said
    assert "this sweep began the job before; it goes on" in (place / "again/0/lrp.log").read_text()
    pd.testing.assert_frame_equal(rows(place / "again"), rows(place / "calm"))


def test_the_same_command_finishes_what_a_lost_worker_left(place):
    """Where Ray is told not to try again."""
    words = [*RAY, "hydra.launcher.ray.remote.max_retries=0"]
    code, said = sweep_that_loses_one(place, "left", kill, *words)
    assert code == 1 and "; to go on: python -m lrp.run -m seed=0,1 " in said
    assert len(rows(place / "left")) < len(rows(place / "calm"))
    done = sweep(place, "left", *words, "resume=true")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(rows(place / "left"), rows(place / "calm"))
