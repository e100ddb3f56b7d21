"""Files that several machines write: whole without locks, and what a process still writes is not taken from it."""

import errno
import fcntl
import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from helpers import RESULT_LAYERS, results_row

from lrp import locks
from lrp.files import remove_leftovers, write_text, write_whole
from lrp.job.running import running
from lrp.locks import is_running, locked, neighbourhood
from lrp.results.run_folder import RunFolder


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(number, tmp_path, monkeypatch, caplog):
    """What a lock would guard runs, the log says so once, and a job that has to run alone says that nobody knows."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_told", set())
    for name in ("a.lock", "b.lock"):
        with locked(tmp_path / name):
            write_text(tmp_path / "a.txt", name)
    assert (tmp_path / "a.txt").read_text() == "b.lock"
    (said,) = caplog.messages
    assert said == f"{tmp_path}: no locks here ({os.strerror(number)}); two jobs that need the same may both compute it"
    with running(tmp_path, alone=True), running(tmp_path, alone=False):
        assert not list((tmp_path / "running").glob("*.job"))
    assert "nobody knows whether other jobs run beside this one" in caplog.text


def test_a_lock_that_somebody_holds_is_one(tmp_path):
    with open(tmp_path / "a.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert locks.lockable(tmp_path / "a.lock")


def test_jobs_of_another_machine_disturb_nobody(tmp_path, monkeypatch):
    with running(tmp_path, alone=False):
        monkeypatch.setattr("lrp.job.running.machine", lambda: "another")
        with running(tmp_path, alone=True):
            assert len(list((tmp_path / "running").glob("*.job"))) == 2


def test_what_somebody_still_writes_stays(tmp_path):
    """A process of this machine as long as it runs, one of another machine for a day."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert is_running(os.getpid()) and not is_running(dead.pid)
    here, there = neighbourhood(), "0" * 8
    kept = [f".a-{here}-{os.getpid()}-abcd1234.csv", f".a-{there}-{dead.pid}-abcd1234.csv", ".a-abcd1234.csv"]
    gone = [f".a-{here}-{dead.pid}-abcd1234.csv", f".a-{there}-1-abcd1234.csv", ".a-bcde1234.csv"]
    for name in (*kept, *gone):
        (tmp_path / name).touch()
    for name in gone[1:]:
        os.utime(tmp_path / name, (time.time() - 90000,) * 2)
    remove_leftovers(tmp_path, "a")
    assert {file.name for file in tmp_path.iterdir()} == {*kept}


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path):
    """Another process has finished the same work and removes what led to it."""
    removed = []

    def write(path):
        if not removed:
            removed.append(path)
            path.unlink()
            path.parent.rmdir()
        path.write_text("whole")

    write_whole(tmp_path / "partial" / "a.txt", write)
    assert removed and [file.name for file in (tmp_path / "partial").iterdir()] == ["a.txt"]
    with pytest.raises(OSError, match="No such file"):  # whatever is removed each time
        write_whole(tmp_path / "b.txt", lambda path: (path.unlink(), path.read_text()))


def rows(folder):
    table, layers = pd.read_csv(folder / "results.csv"), pd.read_csv(folder / "layers.csv")
    return dict(zip(table["sparsity"], table["accuracy"])), dict(zip(layers["sparsity"], layers["kept"]))


def test_two_processes_that_do_the_same_job(tmp_path):
    """A row is stored once, by whichever has it first, with its own details; nobody takes a row away."""
    first, second = (RunFolder(tmp_path, {}, resume=True) for _ in range(2))

    def add(run, sparsity, number):
        run.add(results_row(sparsity, accuracy=number), RESULT_LAYERS.assign(sparsity=sparsity, kept=number))

    add(first, 0.5, 1)
    add(second, 0.5, 2)
    assert rows(tmp_path) == ({0.5: 1}, {0.5: 1}) and second.rows["accuracy"].tolist() == [1]
    add(second, 0.6, 3)
    add(first, 0.7, 4)
    first.update()
    second.update()
    assert first.finished(sparsity=0.6) and second.finished(sparsity=0.7)
    add(second, 0.8, 5)
    assert rows(tmp_path) == ({0.5: 1, 0.6: 3, 0.7: 4, 0.8: 5},) * 2
