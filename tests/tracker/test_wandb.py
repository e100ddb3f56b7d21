"""W&B without a network: what it is told, by a stand-in for the package."""

import contextlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from shell import check_refused, command
from tracker.offline import offline_runs

from lrp.config.build import compose_job
from lrp.errors import InputError
from lrp.tracker.wandb import WandbTracker

LAYERS = pd.DataFrame({"layer": ["conv", "conv", "fc.1"], "kept": [2, 1, 4], "full": [5, 5, 9]})
CHOSEN = {"scorer": "magnitude", "method": "singular_vectors", "model": "m", "dataset": "d", "label": "magnitude, none", "blocking": "none"}


class StandIn(SimpleNamespace):
    """What lrp asks of the package, written down; ``broken`` says what fails, ``server`` what W&B knows of a run: its steps."""

    def __init__(self, key=None, broken=(), server=None):
        self.started, self.logged, self.files, self.ended, self.defined, self.summary = [], [], [], [], {}, {}
        self.api, self.Settings = SimpleNamespace(api_key=key), dict
        self.broken, self.server = broken, server
        self.Table = lambda dataframe, allow_mixed_types: dataframe
        self.Image = self.Html = lambda *given, **options: given[0]

    def init(self, **options):
        if options["mode"] in self.broken:
            raise ConnectionError("no route\nto host")
        self.started.append(options)
        return SimpleNamespace(
            id=options.get("id", "x"), resumed=self.server is not None, step=self.server or 0, log=self.log, summary=self.summary,
            finish=lambda exit_code: self.ended.append(exit_code), log_artifact=lambda artifact, aliases: self.files.append(artifact),
            define_metric=lambda name, step_metric, summary: self.defined.update({name: step_metric}),
            dir=f"{options['dir']}/wandb/{options['mode']}-run-x/files", url="https://wandb.ai/x",
        )  # fmt: skip

    def log(self, values, step, commit):
        if "log" in self.broken:
            raise OSError("disk full")
        self.logged.append({"_step": step, **values})

    def Artifact(self, name, type, metadata):
        artifact = SimpleNamespace(name=name, type=type, paths=[], metadata=metadata)
        artifact.add_file = artifact.paths.append
        return artifact


@pytest.fixture
def start(monkeypatch, tmp_path):
    """A tracked job: ``with start(wandb, mode="online") as tracked``."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DATA_DIR", "")  # so that what the tracker sets is taken back
    monkeypatch.setenv("WANDB_CACHE_DIR", "")

    @contextlib.contextmanager
    def started(wandb, resume=False, **options):
        tracker = WandbTracker(**options)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "wandb", wandb)
            inner = {"images": 4, "inner": {"seed": 0}}
            settings = {"seed": 3, "scorer": {"_target_": "x"}, "calibration": inner, "resume": resume}
            with tracker.start(settings, CHOSEN, tmp_path, "sweep") as tracked:
                yield tracked

    return started


def test_settings_rows_ranks_and_the_table(start, tmp_path):
    wandb, table = StandIn(), tmp_path / "results.csv"
    table.write_text("scorer,blocking\nmagnitude,none\n")
    with start(wandb, project="p", tags=["mine"]) as tracked:
        tracked.rows(pd.DataFrame({"scorer": ["magnitude"], "accuracy": [0.5], "loss": [float("nan")]}))
        tracked.row({"scorer": "magnitude", "accuracy": 0.25, "sparsity_params": 0.5, "sparsity_macs": 0.4, "latency": None}, LAYERS)
        tracked.row({"accuracy": 0.75, "per_parameter": True}, None)
        tracked.files([table, tmp_path / "figure3.png"])
    (run,) = wandb.started
    flat = {"seed": 3, "scorer__target_": "x", "calibration_images": 4, "calibration_inner_seed": 0, "resume": False}
    assert run["config"] == {**CHOSEN, **flat}
    assert (run["project"], run["group"], run["mode"], run["dir"]) == ("p", "sweep", "offline", str(tmp_path))
    assert run["name"].startswith("singular_vectors: magnitude, none; m on d; seed 3; 20")
    assert run["tags"] == ["singular_vectors", "m", "d", "magnitude", "mine"]
    earlier, row, study, picture, results = wandb.logged
    ranks = row.pop("ranks")
    assert earlier == {"_step": 0, "accuracy": 0.5} and study == {"_step": 2, "accuracy": 0.75}
    shown = {"accuracy": 0.25, "sparsity_params": 0.5, "sparsity_macs": 0.4, "over_macs/accuracy": 0.25}
    assert row == {"_step": 1, **shown, "rank/conv": 3, "rank/fc.1": 4}
    assert ranks.to_dict("list") == {"layer": ["conv", "fc.1"], "kept": [3, 4], "full": [10, 9]}
    assert picture == {"_step": 3, "figures/figure3": str(tmp_path / "figure3.png")}
    assert results["results"].to_dict("records") == [{"scorer": "magnitude", "blocking": "none"}]
    assert [(file.type, file.paths) for file in wandb.files] == [("results", [str(table)])] and wandb.ended == [0]


def test_x_axes(start):
    wandb = StandIn()
    with start(wandb) as tracked:
        tracked.row({"accuracy": 0.25, "sparsity_params": 0.5, "sparsity_macs": 0.4}, LAYERS)
        tracked.epoch("train", "", {"epoch": 1.0, "loss": 2.0, "validation_accuracy": float("nan")})
        tracked.epoch("finetune", "90", {"epoch": 1, "loss": 2.0})
    assert wandb.defined == {
        "accuracy": "sparsity_params", "over_macs/accuracy": "sparsity_macs", "sparsity_macs": "sparsity_params", "sparsity_params": None,
        "rank/conv": "sparsity_params", "rank/fc\\.1": "sparsity_params", "train/epoch": None, "train/loss": "train/epoch",
        "finetune/epoch": None, "finetune/loss/90": "finetune/epoch",
    }  # fmt: skip
    assert wandb.logged[-2:] == [
        {"_step": 1, "train/epoch": 1, "train/loss": 2.0},
        {"_step": 2, "finetune/epoch": 1, "finetune/loss/90": 2.0},
    ]


@pytest.mark.parametrize(
    "mode, said", [("offline", "wandb sync {}/wandb/offline-run-x"), ("online", "https://wandb.ai/x"), ("disabled", "")]
)
def test_it_says_where_the_run_lies(start, caplog, tmp_path, mode, said):
    caplog.set_level("INFO")
    with start(StandIn("key"), mode=mode):
        pass
    assert said.format(tmp_path) in caplog.text and bool(said) == ("wandb: " in caplog.text)


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
        tracked.epoch("train", "", {"epoch": 1})
        tracked.model(tmp_path / "model-0.safetensors", "0", {})
        tracked.files([tmp_path / "results.csv"])
    assert "the job goes on without it" in caplog.text


def test_a_job_that_fails_ends_its_run_as_failed(start):
    wandb = StandIn()
    with pytest.raises(KeyError), start(wandb):
        raise KeyError
    assert wandb.ended == [1]


def test_the_command_line_before_the_environment_before_the_default(start, monkeypatch, tmp_path):
    names, other = ("project", "entity", "mode", "dir", "tags"), tmp_path / "other"
    default, wandb = {"project": "lrp", "entity": None, "mode": "offline", "dir": str(tmp_path)}, StandIn("key", server=0)
    with start(wandb):
        pass
    assert {name: wandb.started[-1][name] for name in default} == default
    for name, value in {"PROJECT": "e", "ENTITY": "team", "MODE": "online", "DIR": str(other), "TAGS": "a, b"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    with start(wandb):
        pass
    asked = [wandb.started[-1][name] for name in names]
    assert asked[:4] == ["e", "team", "online", str(other)] and asked[4][-2:] == ["a", "b"]
    with start(wandb, project="c", entity="own", mode="offline", dir=str(tmp_path / "third"), tags=["c"]):
        pass
    asked = [wandb.started[-1][name] for name in names]
    assert asked[:4] == ["c", "own", "offline", str(tmp_path / "third")] and asked[4][-3:] == ["c", "a", "b"]


def test_what_the_agent_of_a_sweep_says_is_left_to_wandb(start, monkeypatch):
    wandb = StandIn()
    for name in ("RUN_ID", "NAME", "RUN_GROUP"):
        monkeypatch.setenv(f"WANDB_{name}", "of the agent")
    with start(wandb):
        pass
    assert not {"id", "name", "group", "resume"} & {*wandb.started[0]}


def test_a_mode_in_the_environment_that_there_is_not(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "dry")
    with pytest.raises(InputError, match="^WANDB_MODE=dry: choose one of offline, online, disabled$"):
        WandbTracker()
    assert WandbTracker(mode="offline").mode == "offline"


@pytest.mark.parametrize("words", [["tracker.tags=[1]"], ["tracker.project=''"], ["tracker.dir=3"]])
def test_options_that_cannot_be(words, capsys):
    check_refused(["tracker=wandb", *words], words[0].split("=")[0] + "=", capsys)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_without_the_package(monkeypatch, name):
    """Everything but the tracker works, and the tracker is refused in a sentence."""
    monkeypatch.setitem(sys.modules, name, None)
    assert compose_job().tracker.name == "none"
    with pytest.raises(InputError, match=rf"^tracker={name}: it needs {name}: pip install 'lrp\[{name}\]'"):
        compose_job(f"tracker={name}")


@pytest.mark.long
@pytest.mark.slow
def test_a_job_without_wandb_does_not_look_for_it(tmp_path, cache):
    """A whole job where neither tracker can be imported."""
    words = command(cache, "scorer=magnitude", "sparsity.grid=[0.5]", "hydra.run.dir=run")[3:]
    script = f"import sys; sys.modules.update(wandb=None, trackio=None); sys.argv = ['lrp', *{words!r}]; from lrp.command import run; run()"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and (tmp_path / "run" / "report.html").exists(), done.stderr


@pytest.mark.long
@pytest.mark.slow
def test_a_sweep_without_key_network_or_terminal(tmp_path, cache):
    """Nothing prompts; each job of a sweep leaves one run on the disk, and the sweep one of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | {"HOME": str(tmp_path)}
    words = ["-m", "scorer=magnitude,energy", "tracker=wandb", "tracker.mode=online", "sparsity.grid=[0,0.5]", "hydra.sweep.dir=sweep"]
    done = subprocess.run(command(cache, *words), cwd=tmp_path, env=clean, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "there is no W&B key" in done.stderr and "not logged" not in done.stderr
    jobs = [run for job in ("0", "1") for run in offline_runs(tmp_path / "sweep" / job)]
    assert [run.config["scorer"] for run in jobs] == ["magnitude", "energy"]
    assert all(len(run.column("accuracy")) == 2 and run.column("figures/figure3/path") for run in jobs)
    (whole,) = offline_runs(tmp_path / "sweep")
    assert {run.run.run_group for run in (*jobs, whole)} == {"singular_vectors vgg16_slim sweep"}
    assert len(whole.table("results")) == 4 and whole.column("report/path") and whole.column("figures/figure3/path")
