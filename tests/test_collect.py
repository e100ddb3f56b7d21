"""Tables of many machines put together, and what is not finished, with the commands that finish it."""

import shlex
import shutil

import pandas as pd
import pytest
import yaml
from faults.children import quick, run, warm_up
from helpers import RESULT_LAYERS, results_row

from lrp.collect import main
from lrp.config.plugins import BASIC
from lrp.config.unfinished import unfinished
from lrp.results.run_folder import RunFolder

GRID = (0.5, 0.9)


def made_job(folder, words, rows, log="", **changes):
    """A job of a sweep as it lies there: its words, some of its rows, and what its log says."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(words))
    (folder / "lrp.log").write_text(log)
    if rows is not None:
        job = RunFolder(folder, {}, resume=False, asked=len(GRID))
        for sparsity in rows:
            job.add(results_row(sparsity, **changes), RESULT_LAYERS.assign(sparsity=sparsity))


def made_sweep(folder, task=("seed=0,1,2,3", "scorer=variance"), hydra=("hydra/launcher=slurm", "hydra.mode=MULTIRUN"), **more):
    folder.mkdir()
    noted = {"overrides": {"task": [*task], "hydra": [*hydra]}, "sweep": {"subdir": "${hydra.job.num}"}, "sweeper": {"_target_": BASIC}}
    noted = {**noted, "mode": "MULTIRUN", **more}
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": noted}, sort_keys=False))


@pytest.fixture
def sweep(tmp_path):
    """Four jobs: one finished, one half done, one that failed, one that did not begin."""
    folder = tmp_path / "out puts"
    made_sweep(folder)
    made_job(folder / "0", ["seed=0", "scorer=variance"], GRID, seed=0)
    made_job(folder / "1", ["seed=1", "scorer=variance"], GRID[:1], seed=1)
    made_job(folder / "2", ["seed=2", "scorer=variance"], (), "2026-01-01 ERROR lrp: job 2 (seed=2) failed: no images\n", seed=2)
    results_row(0.5)
    pd.concat([pd.read_csv(folder / name / "results.csv") for name in "01"]).to_csv(folder / "results.csv", index=False)
    return folder


def test_what_is_not_finished_is_listed_with_its_command(sweep, capsys):
    main([str(sweep)])
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [f"{sweep / 'collected.csv'}: 3 rows of 2 runs", "not finished: 3 of 4 runs"]
    said = [f"{sweep / '1'}: half done: 1 of 2 rows", f"{sweep / '2'}: no rows: no images", f"{sweep / '3'}: missing: it did not begin"]
    assert out[2::2] == said
    for number, line in enumerate(out[3::2], 1):
        words = ["lrp", "run", f"seed={number}", "scorer=variance", "resume=true", f"hydra.run.dir={sweep / str(number)}"]
        assert shlex.split(line) == words
    assert sorted(pd.read_csv(sweep / "collected.csv")["seed"]) == [0, 0, 1]


def test_an_experiment_that_is_a_sweep_by_itself(tmp_path):
    """Its jobs are told to be one run; its values count, and those of the command line come before them."""
    task, params = ["experiment=figure1", "seed=range(2)"], {"study.dims": "[1],[2]", "seed": "0,1,2"}
    made_sweep(tmp_path / "a", task, ["hydra.searchpath=[file://my]"], sweeper={"_target_": BASIC, "params": params})
    runs, waiting = unfinished([tmp_path])
    assert len(runs) == len(waiting) == 4 and runs[3].folder == tmp_path / "a" / "3"
    words = "study.dims=[2] seed=1 experiment=figure1 hydra.searchpath=[file://my] hydra.mode=RUN resume=true".split()
    assert shlex.split(runs[3].command)[2:-1] == words


def test_folders_of_ones_own_naming(tmp_path):
    made_sweep(tmp_path / "a", ["seed=0,1"], sweep={"subdir": "of-${seed}"})
    made_job(tmp_path / "a" / "of-1", ["seed=1", "resume=true"], GRID)
    ((missing),) = unfinished([tmp_path])[1]
    assert missing.state == "missing: seed=0"
    assert missing.command == f"lrp run -m seed=0,1 hydra/launcher=slurm resume=true hydra.sweep.dir={tmp_path}/a"


def test_machines_that_shared_a_sweep(sweep, tmp_path, capsys):
    """What one lacks and another holds is finished; a row that both hold stands once, and two that differ are told."""
    other = tmp_path / "other"
    made_sweep(other)
    made_job(other / "0", ["seed=0", "scorer=variance"], GRID, seed=0, seconds_score=7)
    made_job(other / "1", ["scorer=variance", "seed=1", "resume=true"], GRID, seed=1, accuracy=0.25)
    main([str(sweep), str(other), "--out", str(tmp_path / "all.parquet")])
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"{tmp_path / 'all.parquet'}: 5 rows of 3 runs, without 2 rows that several folders hold"
    assert "half done" not in out and "not finished: 4 of 8 runs" in out
    assert err == (
        f"lrp: singular_vectors, variance, seed 1, sparsity 0.5: the same was asked in {sweep / '1'}, {other / '1'}, "
        "and came out differently: accuracy 0.5, 0.25\n"
    )
    table = pd.read_parquet(tmp_path / "all.parquet")
    assert len(table) == 5 and table["folder"].nunique() == 3


def test_a_study_s_rows(tmp_path, capsys):
    for name, sizes in (("a", (1, 2)), ("b", (2, 3))):
        job = RunFolder(tmp_path / name, {}, False, ["study", "dataset", "seed", "size"], "epochs.csv", ("size",), 2)
        for size in sizes:
            job.add({"study": "of_mine", "dataset": "mnist", "seed": 0, "size": size}, pd.DataFrame({"size": [size]}))
    main([str(tmp_path)])
    assert ": 3 rows of 2 runs, without 1 row that several folders hold" in capsys.readouterr().out
    made_job(tmp_path / "c", ["seed=0"], GRID)
    with pytest.raises(SystemExit, match="rows of of_mine, prunings, which have other columns; collect each by itself"):
        main([str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["."], "no results.csv lies below ."),
        ([".", "--out", "table.xlsx"], "--out table.xlsx: the name of the table must end in .csv or .parquet"),
    ],
)
def test_what_cannot_be_collected(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=said):
        main(words)


MANY = "hydra: {sweeper: {_target_: BASIC}, overrides: {task: ['x=range(0,90000)', 'y=range(0,90000)']}}"


@pytest.mark.parametrize("text", ["[1]", "hydra: 3", "a: &a [1]\nb: *a", MANY])
def test_a_damaged_note_of_a_sweep(text, tmp_path):
    (tmp_path / "multirun.yaml").write_text(text.replace("BASIC", BASIC))
    with pytest.raises(SystemExit, match="multirun.yaml|more than 100000"):
        main([str(tmp_path)])


@pytest.mark.long
@pytest.mark.slow
def test_the_commands_finish_what_they_say(tmp_path, capsys, monkeypatch):
    """Pasted, they give what an undisturbed sweep gives."""
    warm_up()
    monkeypatch.chdir(tmp_path)
    words = quick("-m", "scorer=magnitude,energy", "sparsity.grid=[0.5,0.9]", "hydra.sweep.dir=sweep", "cache_dir=cache")
    assert run(words, tmp_path / "log").code == 0
    whole = pd.read_csv("sweep/results.csv")
    file = tmp_path / "sweep/0/results.csv"
    pd.read_csv(file).head(1).to_csv(file, index=False)
    shutil.rmtree("sweep/1")
    main(["sweep"])
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert len(commands) == 2
    for command in commands:
        assert run(command[2:], tmp_path / "log").code == 0, (tmp_path / "log").read_text()
    main(["sweep"])
    assert capsys.readouterr().out == "sweep/collected.csv: 4 rows of 2 runs\n"
    columns = [name for name in whole if not name.startswith("seconds")]
    pd.testing.assert_frame_equal(pd.read_csv("sweep/collected.csv")[columns], whole[columns])
