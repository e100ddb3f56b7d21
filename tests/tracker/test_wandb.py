"""W&B without a network: what it is told, by a stand-in for the package, and one real run that stays on the disk."""

import contextlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from shell import command

from lrp.tracker.wandb import WandbTracker

LAYERS = pd.DataFrame({"layer": ["conv", "conv", "fc"], "kept": [2, 1, 4], "full": [5, 5, 9]})


class StandIn(SimpleNamespace):
    """What lrp asks of the package, written down; ``broken`` says what fails."""

    def __init__(self, key=None, broken=()):
        self.started, self.logged, self.files, self.ended = [], [], [], []
        self.api, self.Settings = SimpleNamespace(api_key=key), dict
        self.broken = broken

    def init(self, **options):
        if options["mode"] in self.broken:
            raise ConnectionError("no route\nto host")
        self.started.append(options)
        return SimpleNamespace(id="x", log=self.log, finish=lambda exit_code: self.ended.append(exit_code), log_artifact=self.files.append)

    def log(self, values):
        if "log" in self.broken:
            raise OSError("disk full")
        self.logged.append(values)

    def Table(self, dataframe):
        return dataframe

    def Artifact(self, name, type):
        artifact = SimpleNamespace(name=name, type=type, paths=[])
        artifact.add_file = artifact.paths.append
        return artifact


@pytest.fixture
def start(monkeypatch, tmp_path):
    """A tracked job: ``with start(wandb, mode="online") as tracked``."""
    monkeypatch.setenv("WANDB_DATA_DIR", "")  # so that what the tracker sets is taken back
    monkeypatch.setenv("WANDB_CACHE_DIR", "")

    @contextlib.contextmanager
    def started(wandb, **options):
        monkeypatch.setitem(sys.modules, "wandb", wandb)
        settings = {"seed": 3, "scorer": {"_target_": "x"}, "calibration": {"images": 4, "inner": {"seed": 0}}}
        with WandbTracker(**options).start(settings, {"scorer": "magnitude"}, tmp_path, "sweep") as tracked:
            yield tracked

    return started


def test_settings_rows_ranks_and_the_table(start, tmp_path):
    wandb = StandIn()
    with start(wandb, project="p") as tracked:
        tracked.rows(pd.DataFrame({"scorer": ["magnitude"], "accuracy": [0.5], "loss": [float("nan")]}))
        tracked.row({"scorer": "magnitude", "accuracy": 0.25, "latency": None}, LAYERS)
        tracked.row({"accuracy": 0.75}, None)
        tracked.file(tmp_path / "results.csv")
    (run,) = wandb.started
    assert run["config"] == {"seed": 3, "scorer": "magnitude", "scorer__target_": "x", "calibration_images": 4, "calibration_inner_seed": 0}
    assert (run["project"], run["group"], run["mode"], run["dir"]) == ("p", "sweep", "offline", str(tmp_path))
    earlier, row, study = wandb.logged
    ranks = row.pop("ranks")
    assert earlier == {"accuracy": 0.5} and study == {"accuracy": 0.75}
    assert row == {"accuracy": 0.25, "rank/conv": 3, "rank/fc": 4}
    assert ranks.to_dict("list") == {"layer": ["conv", "fc"], "kept": [3, 4], "full": [10, 9]}
    assert [(file.type, file.paths) for file in wandb.files] == [("results", [str(tmp_path / "results.csv")])] and wandb.ended == [0]


@pytest.mark.parametrize(
    "wandb, sentence", [(StandIn(), "there is no W&B key"), (StandIn("key", ["online"]), "W&B cannot be reached (no route)")]
)
def test_online_becomes_offline_and_says_so(start, caplog, wandb, sentence):
    with start(wandb, mode="online"):
        pass
    assert [run["mode"] for run in wandb.started] == ["offline"] and sentence in caplog.text and "to host" not in caplog.text


def test_a_failure_to_log_never_fails_a_job(start, caplog, tmp_path):
    with start(StandIn(broken=["log"])) as tracked:
        tracked.row({"accuracy": 0.5}, LAYERS)
    assert "not logged (disk full)" in caplog.text
    with start(StandIn(broken=["offline"])) as tracked:
        tracked.row({"accuracy": 0.5}, LAYERS)
        tracked.file(tmp_path / "results.csv")
    assert "the job goes on without it" in caplog.text


def test_a_job_that_fails_ends_its_run_as_failed(start):
    wandb = StandIn()
    with pytest.raises(KeyError), start(wandb):
        raise KeyError
    assert wandb.ended == [1]


@pytest.mark.slow
def test_a_real_run_without_key_network_or_terminal(tmp_path, cache):
    """Nothing prompts, and each job of a sweep leaves one run on the disk."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | {"HOME": str(tmp_path)}
    words = ["-m", "scorer=magnitude", "tracker=wandb", "tracker.mode=online", "sparsity.grid=[0,0.5]", "hydra.sweep.dir=sweep"]
    done = subprocess.run(command(cache, *words), cwd=tmp_path, env=clean, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "there is no W&B key" in done.stderr and "not logged" not in done.stderr
    (run,) = (tmp_path / "sweep" / "0" / "wandb").glob("offline-run-*")
    assert any(file.stat().st_size for file in run.glob("*.wandb"))
