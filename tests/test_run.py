"""What a user types, from outside: help, a sweep with a failing job, a kill and its resumption."""

import errno
import itertools
import json
import signal
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from helpers import GROUPS, NAMES
from shell import command, run_here, run_lrp

from lrp.errors import InputError
from lrp.results.collect import collect
from lrp.results.jobs import failure

pytestmark = pytest.mark.slow


def test_help_lists_groups_and_options(tmp_path):
    done = subprocess.run([sys.executable, "-m", "lrp.run", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    for group in (*GROUPS, "study", "experiment"):
        assert all(f"  {group}={name}" in done.stdout for name in NAMES[group])
    assert "calibration.scoring_images=64  " in done.stdout and "seed=0  " in done.stdout


def test_sweep_with_a_failing_job(tmp_path, cache):
    """The second job's checkpoint is no checkpoint: the other's table is whole and collected, the reason is printed, the exit
    code is 1. (Two jobs at once: tests/config/test_own_parts.py.)"""
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no tensors")
    words = ["-m", f"model.checkpoint=null,{bad}", "scorer=magnitude", "sparsity.grid=[0,0.5]", "recovery=batchnorm"]
    out, err = run_lrp(cache, *words, f"hydra.sweep.dir={tmp_path}/sweep", cwd=tmp_path, code=1)
    assert f"model.checkpoint={bad}: it cannot be read as a safetensors file" in err
    assert out.startswith(f"folder: {tmp_path}/sweep, 2 jobs\n") and "[job 1 of 2] done, about " in err and "subset" not in err
    table = pd.read_csv(tmp_path / "sweep" / "results.csv")
    assert sorted(zip(table["scorer"], table["sparsity"])) == [("magnitude", 0), ("magnitude", 0.5)]
    written = ("results.csv", "figure3.png", "figure3.pdf", "report.html")
    assert out.strip().splitlines()[-4:] == [f"{tmp_path}/sweep/{name}" for name in written]
    assert "job 1" in (report := (tmp_path / "sweep" / "report.html").read_text()) and "cannot be read as a safetensors file" in report
    half = table[table["sparsity"] == 0.5]
    assert (half["params"] <= half["params_dense"] / 2).all() and (half["sparsity_params"] >= 0.5).all()
    dense = table[table["sparsity"] == 0]
    assert (dense["accuracy_before_recovery"] == dense["accuracy_dense"]).all() and (dense["macs"] == dense["macs_dense"]).all()


@pytest.mark.long
def test_a_search_tells_once_what_failed_and_runs_no_job_twice(tmp_path, cache):
    """Four trials of two values, one of which names no layer."""
    words = ["-m", "hydra/sweeper=optuna", "optimise=accuracy", "hydra.sweeper.n_trials=4", "exclude=[nothing],[classifier]"]
    _, err = run_lrp(cache, *words, "scorer=magnitude", "sparsity.grid=[0.5]", f"hydra.sweep.dir={tmp_path}/sweep", cwd=tmp_path)
    assert "Failed experiment" not in err and "Error executing" not in err
    failed, again = err.count("exclude=nothing: no layer has this name"), err.count("the same words as those of job ")
    assert failed > 0 and again > 0 and failed + again + len(pd.read_csv(tmp_path / "sweep" / "results.csv")) == 4
    assert err.count("Best value") == 1


def test_run_folder_is_complete(tmp_path, cache):
    """With the digits that come with lrp, as a user's first run has them."""
    words = ["dataset=mnist_small", "blocking=alds", "blocking.k=2", "scorer=variance", "sparsity.grid=[0.6]"]
    run = tmp_path / "run"
    run_here(cache, run, *words)
    scores = pd.read_parquet(run / "scores.parquet")
    assert list(scores.columns) == [
        "layer",
        "block",
        "row_start",
        "row_stop",
        "col_start",
        "col_stop",
        "component",
        "singular_value",
        "score",
    ]
    layers, calibration = pd.read_csv(run / "layers.csv"), pd.read_csv(run / "calibration.csv")
    row = pd.read_csv(run / "results.csv").iloc[0]
    assert (len(scores), layers["kept"].sum(), len(layers)) == (row["components"], row["components_kept"], row["blocks"])
    assert list(calibration.columns) == ["index"] and len(calibration) == row["scoring_images"] == 4
    assert set(json.loads((run / "versions.json").read_text())) >= {"python", "torch", "git_commit"}
    assert yaml.safe_load((run / "config.yaml").read_text())["blocking"]["k"] == 2
    stored = 0
    for layer in layers.itertuples():  # the parameters counted again from the table
        p, q = map(int, layer.shape.split("x"))
        stored += p * q if layer.dense else layer.kept * (p + q)
    assert stored == row["params"]


@pytest.mark.long
def test_rows_compare_single_scores_with_what_pruning_does(tmp_path, cache):
    """On the dense network all three are 0; the additive one is the sum of the scores of what was removed. Exact scores know no
    joint change; with first-order ones a scorer that looks at no output has all three."""
    shared = ["sparsity.grid=[0,0.3,0.5]", "calibration.scoring_images=16"]
    for scorer, estimator in itertools.product(("perturbation", "magnitude"), ("first_order", "exact")):
        run_here(cache, tmp_path / "s" / f"{scorer}-{estimator}", f"scorer={scorer}", f"estimator={estimator}", *shared)
    table = collect([tmp_path / "s"]).set_index(["scorer", "estimator"])
    kinds = ["perturbation_additive", "perturbation_joint", "perturbation_true"]
    for scorer in ("perturbation", "magnitude"):
        rows = table.loc[(scorer, "first_order")]
        assert (rows[rows["sparsity"] == 0][kinds].abs() < 1e-9).all().all() and (rows[rows["sparsity"] > 0][kinds] > 0).all().all()
        exact = table.loc[(scorer, "exact")]
        assert exact["perturbation_joint"].isna().all() and exact["perturbation_additive"].notna().all() == (scorer == "perturbation")
    scores, layers = (
        getattr(pd, f"read_{kind}")(tmp_path / "s" / "perturbation-first_order" / f"{name}.{kind}")
        for name, kind in (("scores", "parquet"), ("layers", "csv"))
    )
    removed = {}  # the sum of the lowest scores of each layer, as many as the table says
    for sparsity, part in layers.groupby("sparsity"):
        gone = [scores[scores["layer"] == row.layer]["score"].nsmallest(row.full - row.kept).sum() for row in part.itertuples()]
        removed[sparsity] = sum(gone)
    additive = table.loc[("perturbation", "first_order")].set_index("sparsity")["perturbation_additive"]
    assert additive[0.5] / additive[0.3] == pytest.approx(removed[0.5] / removed[0.3], rel=1e-6)
    assert "perturbation_standard_error" not in scores
    run_here(cache, tmp_path / "p", "estimator.projections=4", *shared)
    scores = pd.read_parquet(tmp_path / "p" / "scores.parquet")
    assert (scores["perturbation_standard_error"] > 0).mean() > 0.9
    assert (scores["perturbation_standard_error"] <= scores["score"] * 2).all()


def test_residual_network_of_the_command_line(tmp_path, cache):
    words = ["model=resnet20", "model.width=0.25", "blocking=square", "sparsity.grid=[0,0.5]"]
    run_here(cache, tmp_path / "run", *words)
    row = pd.read_csv(tmp_path / "run" / "results.csv").iloc[1]
    assert row["model"] == "resnet20" and row["sparsity_params"] >= 0.5 and row["estimator"] == "first_order"


KILLED = """
import os, signal
from lrp.results.run_folder import RunFolder

add = RunFolder.add

def add_and_die(self, *row):
    add(self, *row)
    os.kill(os.getpid(), signal.SIGKILL)  # nothing cleans up

RunFolder.add = add_and_die
from lrp.run import main

main()
"""


def test_kill_and_resume(tmp_path, cache):
    """Killed after its first row, a run goes on to what an undisturbed one gives; a folder with rows is refused without
    resume, and one with other settings at all."""
    grid = "sparsity.grid=[0,0.5,0.8]"
    run = tmp_path / "run"
    words = ["scorer=magnitude", grid, f"hydra.run.dir={run}"]
    python, _, _, *rest = command(cache, *words)
    done = subprocess.run([python, "-c", KILLED, *rest], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = pd.read_csv(run / "results.csv")
    assert len(kept) == 1

    with pytest.raises(InputError, match="resume=false"):
        run_here(cache, run, *words[:2])
    with pytest.raises(InputError, match="seed was 0, now 3"):
        run_here(cache, run, *words[:2], "resume=true", "seed=3")
    run_lrp(cache, *words, "resume=true", cwd=tmp_path)
    whole = pd.read_csv(run / "results.csv")
    pd.testing.assert_frame_equal(whole.iloc[: len(kept)], kept)
    run_here(cache, tmp_path / "other", *words[:2])
    columns = [name for name in whole if not name.startswith("seconds")]
    pd.testing.assert_frame_equal(whole[columns], pd.read_csv(tmp_path / "other" / "results.csv")[columns])


def test_ctrl_c_and_a_part_that_fails(tmp_path, cache):
    """Stopped in a training that would take an hour, a run says in one line how to go on; the traceback of a scorer's own error
    is in a log."""
    words = ["model.training.epochs=100000", "scorer=magnitude", "sparsity.grid=0.5", "seed=5", f"hydra.run.dir={tmp_path}/run"]
    given = [word for word in command(cache, *words) if word != "model.training.epochs=1"]
    with subprocess.Popen(given, cwd=tmp_path, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        for line in process.stderr:
            if line.startswith("epoch 2 "):
                process.send_signal(signal.SIGINT)
                break
        said = process.stderr.read().strip().splitlines()
    assert process.returncode == 130 and said[-1].startswith("lrp: stopped by Ctrl-C; to go on: python -m lrp.run ")
    assert said[-1].endswith(f"resume=true hydra.run.dir={tmp_path}/run") and not list(tmp_path.rglob(".*-????????.*"))
    assert all(line.startswith("epoch ") for line in said[:-1])
    code = "class Bad:\n    name, reads_outputs = 'bad', False\n\n    def __call__(self, *args):\n        return {}['x']\n"
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "mine.py").write_text(code)
    options = [f"hydra.run.dir={tmp_path}/own", "scorer._target_=mine.Bad", "hydra.searchpath=[file://my]"]
    _, err = run_lrp(cache, *options, cwd=tmp_path, code=1)
    last = err.strip().splitlines()[-1]
    assert last.startswith("lrp: scorer=bad: Bad raised KeyError: 'x' (the traceback is in ") and "Traceback" not in err
    assert "return {}['x']" in next((tmp_path / "own").glob("error-*.log")).read_text()
    assert str(failure(tmp_path / "own")).startswith("scorer=bad: Bad raised KeyError: 'x'")  # what ``lrp collect`` says of it


def test_a_disk_that_the_network_fills_keeps_the_row(tmp_path, cache, monkeypatch):
    """With room again the row is there, and its network is made."""
    words = ["scorer=magnitude", "sparsity.grid=[0.5]", "save=true"]
    run = tmp_path / "run"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lrp.job.prune.save", full)
        with pytest.raises(OSError, match="No space left"):
            run_here(cache, run, *words)
    kept = pd.read_csv(run / "results.csv")
    assert len(kept) == 1 and not (run / "model-0.5.safetensors").exists()
    again = run_here(cache, run, *words, "resume=true")
    assert (run / "model-0.5.safetensors").exists() and len(again) == len(pd.read_csv(run / "results.csv")) == 1
    columns = [name for name in kept if not name.startswith("seconds")]
    pd.testing.assert_frame_equal(pd.read_csv(run / "results.csv")[columns], kept[columns])
    before = (run / "model-0.5.safetensors").stat().st_mtime_ns
    run_here(cache, run, *words, "resume=true")
    assert (run / "model-0.5.safetensors").stat().st_mtime_ns == before  # finished
