"""Slurm from Debian's packages (slurm-wlm, munge) on loopback: a job that has to make way, and one that is killed."""

import os
import platform
import shutil
import signal
import subprocess
import time

import pandas as pd
import pytest
from cluster.lost import rows, sweep, sweep_that_loses_one

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'lrp[slurm]'")
pytestmark = [pytest.mark.slow, pytest.mark.cluster]

CONFIG = """
ClusterName=lrp
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port_of_node}
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
ReturnToService=2
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmdSpoolDir={place}/spool
StateSaveLocation={place}/state
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=main Nodes={host} Default=YES State=UP
"""
SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"]


def munge_runs():
    return subprocess.run("munge -n | unmunge", shell=True, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where an undisturbed sweep lies in ``calm``, while Slurm runs on this machine."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid():
        pytest.skip(f"Slurm is started by root, from Debian's slurm-wlm and munge; not here: {', '.join(missing) or 'root'}")
    place = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(place / "slurm.conf"))
        ports = {"port": 16817, "port_of_node": 16818}  # beside those of a Slurm that runs here
        text = CONFIG.format(host=platform.node(), place=place, cpus=os.cpu_count(), **ports)
        (place / "slurm.conf").write_text(text)
        for name in ("spool", "state"):
            (place / name).mkdir()
        own = not munge_runs()
        if own:
            os.makedirs("/run/munge", exist_ok=True)
            subprocess.run(["chown", "munge", "/run/munge"], check=True)
            subprocess.run(["su", "munge", "-s", "/bin/sh", "-c", "munged"], check=True)
        for name in ("slurmctld", "slurmd"):
            subprocess.run([name, "-f", place / "slurm.conf"], check=True)
        try:
            end = time.monotonic() + 60
            while "idle" not in subprocess.run(["sinfo"], capture_output=True, text=True).stdout:
                assert time.monotonic() < end, (place / "slurmctld.log").read_text()
                time.sleep(0.5)
            done = sweep(place, "calm", "threads=1")
            assert done.returncode == 0, done.stderr
            yield place
        finally:
            daemons = [place / "slurmd.pid", place / "slurmctld.pid"]
            for file in daemons:
                os.kill(int(file.read_text()), signal.SIGTERM)
            if own:
                subprocess.run(["munged", "--stop"], check=True)


def job_of(process):
    """The name by which Slurm knows the job of a process."""
    with open(f"/proc/{process}/environ") as file:
        given = dict(word.partition("=")[::2] for word in file.read().split("\0"))
    return f"{given['SLURM_ARRAY_JOB_ID']}_{given['SLURM_ARRAY_TASK_ID']}"


def test_a_job_that_has_to_make_way_goes_on(place):
    """Queued again by Slurm; it has as many threads as processors."""
    code, said = sweep_that_loses_one(place, "again", lambda job, _: subprocess.run(["scontrol", "requeue", job_of(job)]), *SLURM)
    assert code == 0, said
    assert "this sweep began the job before; it goes on" in (place / "again/0/lrp.log").read_text()
    pd.testing.assert_frame_equal(rows(place / "again"), rows(place / "calm"))


def test_the_same_command_finishes_what_a_killed_job_left(place):
    """Without accounting Slurm forgets the job, submitit waits for it, and somebody stops the command."""

    def kill(job, command):
        os.kill(job, signal.SIGKILL)
        time.sleep(2)
        command.send_signal(signal.SIGINT)

    code, said = sweep_that_loses_one(place, "left", kill, *SLURM)
    assert code == 130 and "; to go on: python -m lrp.run -m seed=0,1 " in said
    subprocess.run(["scancel", "--user=root"], check=True)
    done = sweep(place, "left", *SLURM, "resume=true")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(rows(place / "left"), rows(place / "calm"))
