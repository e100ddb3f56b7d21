"""What a user types, from outside: sentences for bad input, a sweep with a failing job, a kill and its resumption, W&B."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml
from conftest import check_refused

from lrp.config.check import check_command_line
from lrp.config.paths import CONF
from lrp.config.schema import register

QUICK = ["model.training.epochs=1", "model.width=0.03125", "calibration.images=64", "calibration.scoring_images=4", "threads=1"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def command(cache, *words):
    return [sys.executable, "-m", "lrp.run", *QUICK, f"cache_dir={cache}", *words]


def lrp(cache, *words, cwd, code=0):
    done = subprocess.run(command(cache, *words), cwd=cwd, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sed=1"], "sed=1: no option sed, did you mean seed?"),
        (["seed=abc"], "seed=abc: value 'abc' of type 'str' could not be converted to Integer"),
        (["calibration.scoring_imges=3"], "did you mean calibration.scoring_images?"),
        (["xyzzy=1"], "no option xyzzy; choose among model, dataset"),
        (["blocking=foo"], "blocking=foo: no such option; choose one of alds, none, square"),
        (["-m", "scorer=variance,foo"], "scorer=foo: no such option; choose one of energy, magnitude"),
        (["sparsity.grid=[0,1.0]"], "sparsity.grid=1.0: must be a share in [0, 1)"),
        (["sparsity.grid=[-0.1]"], "sparsity.grid=-0.1: must be a share in [0, 1)"),
        (["sparsity.grid=[0.5,0.5]"], "each sparsity may appear only once"),
        (["sparsity.grid=[x]"], "sparsity.grid=[x]: value 'x' of type 'str' could not be converted to Float"),
        (["-m", "blocking=alds", "blocking.k=4,0"], "blocking.k=0: must be an integer of at least 1"),
        (["calibration.scoring_images=9999"], "calibration.scoring_images=9999: must be at most calibration.images=512"),
        (["model.wdth=3"], "did you mean model.width?"),
        (["model.width=-1"], "model.width=-1: must be a number greater than 0"),
        (["device=gpu"], "device=gpu: auto, cpu, or a device that torch finds here"),
        (["estimator.memory_limit=0"], "estimator.memory_limit=0: must be a number greater than 0"),
        (["estimator.output=odds"], "estimator.output=odds: logits, probabilities or hellinger is needed"),
        (["estimator.projections=0"], "estimator.projections=0: must be an integer of at least 1"),
        (["estimator.output_fn=nowhere.pick"], "estimator.output_fn=nowhere.pick: the dotted path of a function is needed"),
        (["estimator=second_order"], "estimator=second_order: no such option; choose one of exact, first_order"),
        (["tracker=wandb", "tracker.mode=on"], "tracker.mode=on: choose one of offline, online, disabled"),
        (["method=foo"], "method=foo: no such option; choose one of alds, balf"),
        (["method=alds", "method.starts=0"], "method.starts=0: must be an integer of at least 1"),
        (["decomposition=qr"], "decomposition=qr: no such option; choose one of activation, svd, two_sided"),
        (["compensation=least_squares", "compensation.ridge=-1"], "compensation.ridge=-1: must be a number of at least 0"),
        (["compensation=least_squares", "compensation.metric=fisher"], "compensation.metric=fisher: gradient or plain is needed"),
        (["rounds.keep_factor=1"], "rounds.keep_factor=1.0: must be a number greater than 0 and less than 1"),
        (["selection=joint", "selection.shrinkage=1"], "selection.shrinkage=1: must be a number of at least 0 and less than 1"),
        (["calibration.samples=0"], "calibration.samples=0: must be an integer of at least 1"),
        (["evaluation.part=train"], "evaluation.part=train: choose one of test, validation"),
        (
            ["evaluation.part=validation", "recovery=finetune", "recovery.hold_out=false"],
            "recovery.hold_out=False: must be true with evaluation.part=validation",
        ),
        (["threads=0"], "threads=0: must be an integer of at least 1"),
        (["budget=flops"], "budget=flops: params or macs"),
        (["selection.round_to=0"], "selection.round_to=0: must be an integer of at least 1"),
        (["selection.break_even=guess"], "selection.break_even=guess: params or measured"),
        (["evaluation.latency=maybe"], "evaluation.latency=maybe"),
        (["save=perhaps"], "save=perhaps"),
        (["-m", "evaluation.latency=true", "hydra/launcher=joblib"], "evaluation.latency=true: jobs that run beside each other disturb it"),
        (["model._target_=torch.nn.Nothing"], "model._target_=torch.nn.Nothing: must be the dotted path of something that makes a network"),
        (["dataset=folder", "dataset.size=0"], "dataset.size=0: must be an integer of at least 1"),
        (["dataset=folder", "dataset.std=[0,1,1]"], "dataset.std=0: must be a number greater than 0"),
        (["dataset=folder", "dataset.mean=[0.5]"], "dataset.mean=[0.5]: must be three numbers"),
        (["model.training.epochs=-1"], "model.training.epochs=-1: must be an integer of at least 0"),
        (["experiment=figure9"], "experiment=figure9: no such option; choose one of figure1, figure1_small, figure2"),
    ],
)
def test_one_sentence_for_bad_input(words, sentence, capsys):
    check_refused(words, sentence, capsys)


@pytest.mark.parametrize("file", sorted(CONF.glob("experiment/*.yaml")), ids=lambda file: file.stem)
def test_every_experiment_composes(file):
    check_command_line(["-m", f"experiment={file.stem}"])


def test_every_key_exists_whatever_is_chosen():
    register()
    for group in (
        "scorer=magnitude,perturbation,noise_to_signal,random,energy,spectrum",
        "blocking=none,alds,square",
        "recovery=none,batchnorm,finetune",
        "selection=global,uniform,lagrangian,joint",
        "decomposition=svd,activation,two_sided",
        "compensation=none,least_squares",
        "method=singular_vectors,alds,balf",
        "tracker=none,wandb",
        "dataset=cifar10,mnist,mnist_small,folder",
        "estimator=exact,first_order",
        "model=vgg16,resnet20",
    ):
        check_command_line(
            [
                "-m",
                group,
                "calibration.scoring_images=8",
                "blocking.k=2",
                "estimator.memory_limit=0.5",
                "estimator.projections=8",
                "estimator.output=probabilities",
                "dataset.path=null",
                "tracker.project=x",
                "compensation.ridge=0.1",
                "selection.per_parameter=true",
                "rounds.keep_factor=0.5",
                "recovery.epochs=2",
            ]
        )


def test_help_lists_groups_and_options(tmp_path):
    done = subprocess.run([sys.executable, "-m", "lrp.run", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    for word in (
        "blocking: alds, none, square",
        "scorer: energy, magnitude, noise_to_signal, perturbation",
        "experiment: figure1, figure1_small, figure2, figure2_small, figure3",
        "study: dim_rank, rank_switch",
        "scoring_images: 64",
        "seed: 0",
    ):
        assert word in done.stdout


def test_sweep_with_a_failing_job(tmp_path, cache):
    """The third job's checkpoint is no checkpoint: the others' tables are whole and collected, the reason is printed, the exit
    code is 1. The same by joblib."""
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no tensors")
    words = ["-m", f"model.checkpoint=null,{bad}", "scorer=magnitude,perturbation", "sparsity.grid=[0,0.5]", "recovery=batchnorm"]
    out, err = lrp(cache, *words, f"hydra.sweep.dir={tmp_path}/sweep", cwd=tmp_path, code=1)
    assert f"model.checkpoint={bad}: it cannot be read as a safetensors file" in err
    table = pd.read_csv(tmp_path / "sweep" / "results.csv")
    assert sorted(zip(table["scorer"], table["sparsity"])) == [
        ("magnitude", 0),
        ("magnitude", 0.5),
        ("perturbation", 0),
        ("perturbation", 0.5),
    ]
    assert out.strip().splitlines()[-3:] == [f"{tmp_path}/sweep/{name}" for name in ("results.csv", "figure3.png", "figure3.pdf")]
    half = table[table["sparsity"] == 0.5]
    assert (half["params"] <= half["params_dense"] / 2).all() and (half["sparsity_params"] >= 0.5).all()
    dense = table[table["sparsity"] == 0]
    assert (dense["accuracy_before_recovery"] == dense["accuracy_dense"]).all() and (dense["macs"] == dense["macs_dense"]).all()

    lrp(cache, *words, f"hydra.sweep.dir={tmp_path}/joblib", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", cwd=tmp_path, code=1)
    other = pd.read_csv(tmp_path / "joblib" / "results.csv")
    columns = [name for name in table if not name.startswith("seconds")]
    pd.testing.assert_frame_equal(table[columns], other[columns])


def test_run_folder_is_complete(tmp_path, cache):
    lrp(cache, "blocking=alds", "blocking.k=2", "scorer=variance", "sparsity.grid=[0.6]", f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    run = tmp_path / "run"
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


def test_rows_compare_single_scores_with_what_pruning_does(tmp_path, cache):
    """On the dense network all three are 0; the additive one is the sum of the scores of what was removed. Exact scores know no
    joint change; with first-order ones a scorer that looks at no output has all three."""
    shared = ["sparsity.grid=[0,0.3,0.5]", "calibration.scoring_images=16"]
    lrp(
        cache,
        "-m",
        "scorer=perturbation,magnitude,random",
        "estimator=first_order,exact",
        *shared,
        f"hydra.sweep.dir={tmp_path}/s",
        cwd=tmp_path,
    )
    table = pd.read_csv(tmp_path / "s" / "results.csv").set_index(["scorer", "estimator"])
    kinds = ["perturbation_additive", "perturbation_joint", "perturbation_true"]
    for scorer in ("perturbation", "magnitude", "random"):
        rows = table.loc[(scorer, "first_order")]
        assert (rows[rows["sparsity"] == 0][kinds].abs() < 1e-9).all().all() and (rows[rows["sparsity"] > 0][kinds] > 0).all().all()
        exact = table.loc[(scorer, "exact")]
        assert exact["perturbation_joint"].isna().all() and exact["perturbation_additive"].notna().all() == (scorer == "perturbation")
    scores, layers = (
        getattr(pd, f"read_{kind}")(tmp_path / "s" / "0" / f"{name}.{kind}") for name, kind in (("scores", "parquet"), ("layers", "csv"))
    )
    removed = {}  # the sum of the lowest scores of each layer, as many as the table says
    for sparsity, part in layers.groupby("sparsity"):
        gone = [scores[scores["layer"] == row.layer]["score"].nsmallest(row.full - row.kept).sum() for row in part.itertuples()]
        removed[sparsity] = sum(gone)
    additive = table.loc[("perturbation", "first_order")].set_index("sparsity")["perturbation_additive"]
    assert additive[0.5] / additive[0.3] == pytest.approx(removed[0.5] / removed[0.3], rel=1e-6)
    assert "perturbation_standard_error" not in scores
    lrp(cache, "estimator.projections=4", *shared, f"hydra.run.dir={tmp_path}/p", cwd=tmp_path)
    scores = pd.read_parquet(tmp_path / "p" / "scores.parquet")
    assert (scores["perturbation_standard_error"] > 0).mean() > 0.9
    assert (scores["perturbation_standard_error"] <= scores["score"] * 2).all()


def test_residual_network_of_the_command_line(tmp_path, cache):
    words = ["model=resnet20", "model.width=0.25", "blocking=square", "sparsity.grid=[0,0.5]", f"hydra.run.dir={tmp_path}/run"]
    lrp(cache, *words, cwd=tmp_path)
    row = pd.read_csv(tmp_path / "run" / "results.csv").iloc[1]
    assert row["model"] == "resnet20" and row["sparsity_params"] >= 0.5 and row["estimator"] == "first_order"


def test_kill_and_resume(tmp_path, cache):
    """Killed after its first row, a run goes on to what an undisturbed one gives; a folder with rows is refused without
    resume, and one with other settings at all."""
    grid = "sparsity.grid=[0,0.3,0.5,0.7,0.8,0.9]"
    run = tmp_path / "run"
    words = ["scorer=magnitude", grid, f"hydra.run.dir={run}"]
    process = subprocess.Popen(command(cache, *words), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (run / "results.csv").exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = pd.read_csv(run / "results.csv")
    assert 1 <= len(kept) < 6

    _, err = lrp(cache, *words, cwd=tmp_path, code=1)
    assert "resume=false" in err and "Traceback" not in err
    _, err = lrp(cache, *words, "resume=true", "seed=3", cwd=tmp_path, code=1)
    assert "seed was 0, now 3" in err
    lrp(cache, *words, "resume=true", cwd=tmp_path)
    whole = pd.read_csv(run / "results.csv")
    pd.testing.assert_frame_equal(whole.iloc[: len(kept)], kept)
    lrp(cache, *words[:2], f"hydra.run.dir={tmp_path}/other", cwd=tmp_path)
    columns = [name for name in whole if not name.startswith("seconds")]
    pd.testing.assert_frame_equal(whole[columns], pd.read_csv(tmp_path / "other" / "results.csv")[columns])


def test_wandb_offline_run_reads_back(tmp_path, cache):
    """Without key, network or terminal: nothing prompts, and the run on disk holds settings, rows, ranks and the table."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | {"HOME": str(tmp_path)}
    words = [
        "-m",
        "scorer=magnitude,relative_error",
        "tracker=wandb",
        "tracker.mode=online",
        "sparsity.grid=[0,0.5]",
        "hydra.sweep.dir=sweep",
    ]
    done = subprocess.run(
        command(cache, *words), cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert "there is no W&B key" in done.stderr
    for number, scorer in enumerate(("magnitude", "relative_error")):
        runs = list((tmp_path / "sweep" / str(number) / "wandb").glob("offline-run-*"))
        assert len(runs) == 1
        read = subprocess.run(
            [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(runs[0])], capture_output=True, text=True, timeout=60
        )
        records = [json.loads(line) for line in read.stdout.splitlines()]
        text = json.dumps(records)
        run = next(record["run"] for record in records if "run" in record)
        config = run["config"]["update"]
        assert (config["scorer"], config["blocking"], config["calibration_scoring_images"]) == (scorer, "none", 4)
        assert '"group": "sweep"' in text or run.get("run_group") == "sweep"
        history = [record["history"] for record in records if "history" in record]
        accuracies = pd.read_csv(tmp_path / "sweep" / str(number) / "results.csv")["accuracy"]
        assert len(history) == 2
        for step, accuracy in zip(history, accuracies):
            assert f'"accuracy": {json.dumps(accuracy)}' in json.dumps(step) and "rank/classifier" in json.dumps(step)
        assert "results.csv" in text and "ranks" in text
