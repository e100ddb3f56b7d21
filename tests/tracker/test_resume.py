"""A real offline run of W&B: killed in the middle, resumed, read back, and uploaded to a stand-in for the server."""

import os
import subprocess
import sys

import pytest
from shell import command
from tracker.offline import offline_runs
from tracker.server import served

from lrp.config.build import compose_job
from lrp.figure.accuracy import FIGURE
from lrp.figure.sweep import summarise
from lrp.job import prune
from lrp.report.page import write_report
from lrp.results.tables import read_table

pytestmark = pytest.mark.slow
GRID = [0, 0.5, 0.8]


class Killed(BaseException):
    """What nobody catches."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache):
    """The run folder of a job with a fine-tuning that dies before its second row and is resumed."""
    folder, patch = tmp_path_factory.mktemp("tracked") / "run", pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        patch.delenv(name)
    words = ["scorer=magnitude", f"sparsity.grid={GRID}", "save=true", "recovery=finetune", "recovery.epochs=2", "recovery.images=64"]
    words = command(cache, "tracker=wandb", "tracker.tags=[mine]", "model.training.epochs=2", *words)[3:]

    def draw():
        return [*summarise(folder, FIGURE)[1], write_report([folder], folder / "report.html")]

    row = prune._Pruning.row

    def dies(self, sparsity, prediction):
        if sparsity == GRID[1]:
            raise Killed
        return row(self, sparsity, prediction)

    patch.setattr(prune._Pruning, "row", dies)
    with pytest.raises(Killed):
        compose_job(*words).run(folder, draw=draw)
    patch.undo()
    compose_job(*words, "resume=true").run(folder, draw=draw)
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    return offline_runs(folder)


def test_it_is_one_run_in_two_folders(runs):
    first, second = runs
    for name in ("run_id", "display_name", "run_group", "project"):
        assert getattr(first.run, name) == getattr(second.run, name)
    assert first.exit_code == 1 and second.exit_code == 0
    steps = [row["_step"] for run in runs for row in run.history]
    assert steps == list(range(len(steps)))
    assert first.column("sparsity") == GRID[:1] and second.column("sparsity") == GRID[1:]


def test_the_rows_are_those_of_the_table(folder, runs):
    table = read_table(folder / "results.csv")
    assert runs[-1].table("results")[0]["blocking"] == "none"
    for name in ("sparsity_params", "sparsity_macs", "accuracy", "accuracy_before_recovery", "loss", "params"):
        assert [value for run in runs for value in run.column(name)] == pytest.approx(table[name].tolist(), nan_ok=True)
    assert [value for run in runs for value in run.column("over_macs/accuracy")] == table["accuracy"].tolist()
    layers = read_table(folder / "layers.csv")
    last = layers[layers["sparsity"] == GRID[-1]].groupby("layer", sort=False)["kept"].sum()
    assert {row["layer"]: row["kept"] for row in runs[-1].table("ranks")} == last.to_dict()
    assert {name: runs[-1].column(f"rank/{name}")[-1] for name in last.index} == last.to_dict()


def test_axes(runs):
    x = runs[0].x | runs[1].x
    assert x["accuracy"] == "sparsity_params" and x["over_macs/accuracy"] == "sparsity_macs"
    assert x["train/loss"] == "train/epoch" and x["finetune/loss/50"] == "finetune/epoch"


def test_trainings_are_curves(folder, runs):
    assert [run.column("train/epoch") for run in runs] == [[1, 2], []]  # what was told is not told again
    for sparsity in GRID:
        epochs = read_table(folder / f"unfinished-{sparsity:g}.csv")
        for name in ("loss", "validation_accuracy"):
            assert [v for run in runs for v in run.column(f"finetune/{name}/{100 * sparsity:g}")] == epochs[name].tolist()


def test_the_summary_is_of_all_rows(folder, runs):
    table, summary = read_table(folder / "results.csv").set_index("sparsity"), runs[-1].summary
    assert summary["accuracy_at_50"] == table["accuracy"][0.5] and summary["accuracy_at_80"] == table["accuracy"][0.8]
    assert summary["accuracy_dense"] == table["accuracy_dense"].iloc[0] and summary["rows"] == len(GRID)
    assert 0 < summary["accuracy_area"] < 1 and "accuracy_at_95" not in summary
    assert not {"accuracy", "loss", "train/loss", "finetune/loss/50", "over_macs/accuracy"} & {*summary}  # the last row
    assert not [name for name in summary if name.startswith("rank/")]


def test_names_tags_and_settings(runs):
    run = runs[0].run
    assert run.display_name.startswith("singular_vectors: magnitude, whole layers; vgg16_slim on mnist; seed 0; 20")
    assert run.run_group.startswith("singular_vectors vgg16_slim 20")
    assert {"singular_vectors", "vgg16_slim", "mnist", "magnitude", "finetune", "mine"} <= {*run.tags} and "none" not in run.tags
    assert runs[0].config["method"] == "singular_vectors" and runs[0].config["calibration_scoring_images"] == 4


def test_figures_and_the_report_are_media(folder, runs):
    for name, file in {"figures/figure3": "figure3.png", "report": "report.html"}.items():
        (place,) = runs[-1].column(f"{name}/path")
        assert (runs[-1].folder / "files" / place).read_bytes() == (folder / file).read_bytes()


def test_networks_and_tables_are_artifacts(folder, runs):
    run = runs[0].run.run_id
    models = [artifact for each in runs for artifact in each.artifacts if artifact["type"] == "model"]
    assert {artifact["name"] for artifact in models} == {f"model-{run}"}
    assert [{*artifact["aliases"]} for artifact in models] == [{"latest", f"sparsity-{sparsity:g}"} for sparsity in GRID]
    table = read_table(folder / "results.csv")
    assert [artifact["metadata"]["accuracy"] for artifact in models] == table["accuracy"].tolist()
    (place,) = models[-1]["files"].values()
    assert place.read_bytes() == (folder / f"model-{GRID[-1]:g}.safetensors").read_bytes()
    (tables,) = [artifact for artifact in runs[-1].artifacts if artifact["type"] == "results"]
    assert {"results.csv", "layers.csv", "scores.parquet", "config.yaml", "versions.json"} <= {*tables["files"]}
    assert tables["files"]["results.csv"].read_bytes() == (folder / "results.csv").read_bytes()


def test_wandb_sync_makes_one_run_of_it(folder, runs, tmp_path):
    """The second folder is appended to the first: the history on the server is whole, and in order."""
    places = [str(run.folder) for run in runs]
    with served() as (server, address):
        mine = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "a" * 40, "HOME": str(tmp_path)}
        env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | mine
        words = [sys.executable, "-m", "wandb", "sync", *places]
        done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    run = runs[0].run.run_id
    assert done.returncode == 0 and server.resumed == [run], done.stdout + done.stderr
    sent = [line["_step"] for line in server.lines[run]]
    assert sent == [row["_step"] for each in runs for row in each.history] == list(range(len(sent)))
