"""trackio: what a real job writes into its store, read back with trackio's own reader, and the run that a resumed job goes on with."""

import json
import os
import subprocess
import sys

import pytest
from shell import command

from lrp.results.tables import read_table
from lrp.tracker.trackio import TrackioTracker

pytestmark = [pytest.mark.slow, pytest.mark.long]

READ = """
import json
from trackio.api import Api
from trackio.sqlite_storage import SQLiteStorage
from trackio.utils import MEDIA_DIR
(run,) = Api().runs("digits")
print(json.dumps({
    "name": run.name, "config": run.config, "logs": SQLiteStorage.get_logs("digits", run.name, run_id=run.id),
    "media": [str(path) for path in MEDIA_DIR.rglob("*") if path.is_file()],
    "artifacts": SQLiteStorage.list_artifacts("digits"),
}, default=str))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache):
    """The folder of a run that was stopped after one row, by its table, and resumed."""
    place = tmp_path_factory.mktemp("store")
    words = ["tracker=trackio", "tracker.project=digits", "scorer=magnitude", "sparsity.grid=[0.5,0.8]", "save=true", "hydra.run.dir=run"]
    script = """
import sys
sys.argv = ["lrp", *sys.argv[1:]]
from lrp.job import prune
row = prune._Pruning.row
def dies(self, sparsity, prediction):
    if sparsity == 0.8:
        raise MemoryError("stopped")
    return row(self, sparsity, prediction)
if "resume=true" not in sys.argv:
    prune._Pruning.row = dies
from lrp.command import run
run()
"""
    for more, code in (([], 1), (["resume=true"], 0)):
        line = [sys.executable, "-c", script, *command(cache, *words, *more)[3:]]
        done = subprocess.run(line, cwd=place, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        said = [line for line in (done.stdout + done.stderr).splitlines() if "trackio" in line.lower()]
        assert done.returncode == code and len(said) == 1 and said[0].startswith("trackio: project digits in "), done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def store(folder):
    env = {**os.environ, "TRACKIO_DIR": str(folder / "outputs/trackio")}
    done = subprocess.run([sys.executable, "-c", READ], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def column(store, name):
    return [log[name] for log in store["logs"] if name in log]


def test_rows_trainings_and_the_summary(folder, store):
    table = read_table(folder / "run" / "results.csv")
    for name in ("sparsity_params", "sparsity_macs", "accuracy"):
        assert column(store, name) == table[name].tolist()
    assert column(store, "train/epoch") == [1] and column(store, "over_macs/accuracy") == table["accuracy"].tolist()
    assert column(store, "summary/accuracy_at_80")[-1] == table["accuracy"].iloc[-1]


def test_it_is_one_run(store):
    steps = [log["step"] for log in store["logs"]]
    assert steps == list(range(len(steps))) and store["name"].startswith(
        "singular_vectors: magnitude, whole layers; vgg16_slim on mnist; seed 0; 20"
    )
    assert store["config"]["method"] == "singular_vectors" and "magnitude" in store["config"]["tags"]
    assert store["config"]["_Group"].startswith("singular_vectors vgg16_slim 20")


def test_media_and_artifacts(folder, store):
    media = {path.rpartition(".")[2] for path in store["media"]}
    assert {"png", "html"} <= media
    assert {artifact["type"] for artifact in store["artifacts"]} >= {"results", "model"}


def test_nothing_in_the_home_folder(folder):
    assert (folder / "outputs/trackio").is_dir()


def test_a_file_in_the_place_of_its_folder(tmp_path, caplog):
    """Said by name; the job goes on, and nothing counts as told."""
    (tmp_path / "file").touch()
    with TrackioTracker(dir=str(tmp_path / "file")).start({}, {}, tmp_path, None) as tracked:
        assert not tracked.active
    assert f"tracker.dir={tmp_path}/file: it cannot be made" in caplog.text and not (tmp_path / "trackio.json").exists()
