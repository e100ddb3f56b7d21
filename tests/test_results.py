"""Tables that survive a kill, refuse what does not belong to them, and are averaged over seeds alone."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from lrp.config.build import compose_job
from lrp.errors import InputError
from lrp.figure.accuracy import accuracy_table, average_over_seeds, draw_figure3, read_reference
from lrp.files import write_whole
from lrp.results.collect import collect
from lrp.results.columns import COLUMNS
from lrp.results.run_folder import RunFolder

LAYERS = pd.DataFrame({"sparsity": [0.5], "layer": ["a"], "block": [0], "shape": ["2x2"], "kept": [1], "full": [2], "dense": [False]})


def row(sparsity=0.5, **changes):
    base = dict.fromkeys(COLUMNS, 0) | {
        "model": "vgg16", "checkpoint_sha256": "aa", "dataset": "cifar10", "method": "singular_vectors", "blocking": "none", "decomposition": "svd",
        "scorer": "variance", "estimator": "exact", "selection": "global", "per_parameter": False, "budget": "params", "compensation": "none",
        "recovery": "none", "sparsity": sparsity, "sparsity_params": sparsity, "accuracy": 0.5, "accuracy_dense": 0.9, "blocking_k": None,
    }  # fmt: skip
    return base | changes


def table(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def test_rows_are_kept_and_continued(tmp_path):
    first = RunFolder(tmp_path, {"seed": 0}, resume=False)
    first.add(row(0.5), LAYERS)
    again = RunFolder(tmp_path, {"seed": 0}, resume=True)
    assert again.finished(sparsity=0.5) and not again.finished(sparsity=0.6)
    again.add(row(0.6), LAYERS.assign(sparsity=0.6))
    stored = pd.read_csv(tmp_path / "results.csv")
    assert list(stored.columns) == COLUMNS and stored["sparsity"].tolist() == [0.5, 0.6]
    assert pd.read_csv(tmp_path / "layers.csv")["sparsity"].tolist() == [0.5, 0.6]


def test_a_folder_from_before_an_option_came_goes_on(tmp_path):
    RunFolder(tmp_path, {"recovery": {"lr": 0.1}}, resume=False).add(row(0.5), LAYERS)
    assert RunFolder(tmp_path, {"recovery": {"lr": 0.1, "hold_out": True}}, resume=True).finished(sparsity=0.5)
    with pytest.raises(InputError, match="recovery.hold_out was True, now False$"):
        RunFolder(tmp_path, {"recovery": {"lr": 0.1, "hold_out": False}}, resume=True)


def test_tables_of_earlier_versions_are_read(tmp_path):
    old = [name for name in COLUMNS if not name.startswith("perturbation_")]
    table(row(0.5))[old].to_csv(tmp_path / "results.csv", index=False)
    read = collect([tmp_path])
    assert list(read.columns) == [*COLUMNS, "folder"] and read["perturbation_joint"].isna().all() and read["accuracy"].tolist() == [0.5]
    table(row(0.5))[old[1:]].to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(InputError, match="lacks the columns model"):
        collect([tmp_path])


def test_runs_with_other_options_are_other_lines():
    """What has no column of its own is in ``options``: such runs are not averaged, and the line says what differs."""
    lines = average_over_seeds(
        table(row(options="a.b=1 c.d=2"), row(options="a.b=1", accuracy=0.7), row(options="a.b=1", accuracy=0.8, seed=1))
    )
    assert sorted(zip(lines["line"].str.split(", ").str[-1], lines["y"].round(6), lines["seeds"])) == [
        ("c.d=2", 0.5, 1),
        ("default options", 0.75, 2),
    ]
    lines = average_over_seeds(table(row(exclude=None), row(exclude="classifier")))
    assert sorted(lines["line"].str.split(", ").str[-1]) == ["exclude=classifier", "exclude=none"]


def test_runs_on_other_images_and_of_other_rounds_are_other_lines():
    """Test and validation images are not averaged; one keep_factor is one line whatever the rounds it takes, another is another."""
    lines = average_over_seeds(table(row(part="test"), row(part="validation", accuracy=0.9), row(part="test", accuracy=0.7, seed=1)))
    assert sorted(zip(lines["line"].str.split(", ").str[-1], lines["y"].round(6), lines["seeds"])) == [
        ("part=test", 0.6, 2),
        ("part=validation", 0.9, 1),
    ]
    slow, fast = ({"options": f"rounds.keep_factor={k}"} for k in (0.8, 0.5))
    lines = average_over_seeds(table(row(0.8, rounds=3, **fast), row(0.9, rounds=4, **fast), row(0.8, rounds=8, **slow)))
    assert lines.groupby("line")["sparsity"].apply(list).to_list() == [[0.8, 0.9], [0.8]]


def test_table_without_a_gradient_step():
    """What a method does not read makes no line of its own; what it reads does; both accuracies are lines."""
    path = Path(__file__).parents[1] / "experiments" / "no_retraining.py"
    spec = importlib.util.spec_from_file_location("no_retraining", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    known = {"recovery": "batchnorm", "accuracy": 0.6, "accuracy_before_recovery": 0.5}
    others = [{"options": None}, {"options": "estimator.output=hellinger estimator.temperature=4.0", "scoring_images": 256}]
    rows = [
        row(method=name, scorer="energy", **known | other, seed=number) for name in ("balf", "pca") for number, other in enumerate(others)
    ]
    rows += [row(method="output_aware", compensation="least_squares", **known | other, seed=number) for number, other in enumerate(others)]
    lines = script.summarise(table(*rows, row(recovery="none")))
    found = {name: part for name, part in lines.groupby("line")}
    for name in ("balf", "pca"):
        assert found[name]["seeds"].tolist() == [2] and found[name]["y"].tolist() == [0.5]
        assert found[f"{name} + batch norm"]["y"].tolist() == [0.6]
    assert sum(name.startswith("output_aware") and not name.endswith("batch norm") for name in found) == 2


def test_options_say_what_is_not_default():
    job = compose_job(
        "method=output_aware",
        "scorer=noise_to_signal",
        "scorer.depth=0.5",
        "estimator.output_fn=torch.nn.functional.relu",
        "recovery=finetune",
        "recovery.lr=1",
    )
    again = compose_job("scorer=random", "scorer.seed=1", "rounds.keep_factor=0.8", "recovery=batchnorm", "recovery.lr=1")
    assert again.options == "scorer.seed=1 rounds.keep_factor=0.8"
    assert job.options == "scorer.depth=0.5 estimator.output_fn=torch.nn.functional.relu recovery.lr=1"
    job = compose_job(
        "blocking=alds", "blocking.k=2", "selection.per_parameter=true", "estimator.memory_limit=0.5", "seed=3", "exclude=[a]"
    )
    assert job.options == "blocking.k=2 selection.per_parameter=True"


def test_a_kill_between_the_two_tables_doubles_nothing(tmp_path):
    run = RunFolder(tmp_path, {}, resume=False)
    run.add(row(0.5), LAYERS)
    both = pd.concat([LAYERS, LAYERS.assign(sparsity=0.6)])
    both.to_csv(tmp_path / "layers.csv", index=False)
    again = RunFolder(tmp_path, {}, resume=True)
    again.add(row(0.6), LAYERS.assign(sparsity=0.6))
    assert pd.read_csv(tmp_path / "layers.csv")["sparsity"].tolist() == [0.5, 0.6]


def test_folders_are_refused(tmp_path):
    RunFolder(tmp_path, {"seed": 0, "scorer": {"_target_": "x"}, "threads": 1}, resume=False).add(row(), LAYERS)
    before = (tmp_path / "results.csv").read_bytes()
    with pytest.raises(InputError, match="resume=false: .*holds finished rows"):
        RunFolder(tmp_path, {"seed": 0}, resume=False)
    with pytest.raises(InputError, match="scorer._target_ was x, now y"):
        RunFolder(tmp_path, {"seed": 0, "scorer": {"_target_": "y"}}, resume=True)
    RunFolder(tmp_path, {"seed": 0, "scorer": {"_target_": "x"}, "threads": 2}, resume=True)  # threads change no result
    assert (tmp_path / "results.csv").read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def half(path):
        path.write_text("ha")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(file, half)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_collect(tmp_path):
    for name in ("a", "b/c"):
        RunFolder(tmp_path / name, {}, resume=False).add(row(), LAYERS)
    assert len(collect([tmp_path])) == 2
    with pytest.raises(InputError, match="no results.csv"):
        collect([tmp_path / "a" / "nothing"])
    (tmp_path / "a" / "results.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match="lacks the columns model"):
        collect([tmp_path])


def test_only_seeds_are_averaged():
    lines = average_over_seeds(table(row(accuracy=0.4), row(accuracy=0.6, seed=1), row(accuracy=0.5, calibration_seed=2)))
    assert len(lines) == 1 and lines["y"][0] == pytest.approx(0.5) and lines["seeds"][0] == 3 and lines["spread"][0] == pytest.approx(0.1)
    for change in ({"scorer": "magnitude"}, {"per_parameter": True}, {"recovery": "batchnorm"}, {"model": "other"}, {"scoring_images": 7}):
        assert average_over_seeds(table(row(), row(seed=1, **change)))["line"].nunique() == 2


def test_networks_trained_by_seed_are_one_line_but_two_checkpoints_are_two():
    trained = table(row(checkpoint_sha256="a"), row(seed=1, checkpoint_sha256="b"))
    assert average_over_seeds(trained)["line"].nunique() == 1
    given = table(row(checkpoint_sha256="a"), row(checkpoint_sha256="b"))
    assert average_over_seeds(given)["line"].nunique() == 2


def test_the_same_run_twice_counts_once():
    assert average_over_seeds(table(row(), row()))["seeds"].tolist() == [1]


def test_k_names_a_line_only_where_it_differs():
    lines = average_over_seeds(table(*[row(blocking="alds", blocking_k=k) for k in (2, 4)], row()))
    assert sorted(lines["line"]) == [
        "alignment variance (variance), alds, blocking_k=2",
        "alignment variance (variance), alds, blocking_k=4",
        "alignment variance (variance), none",
    ]  # fmt: skip


def test_figure_with_reference(tmp_path):
    reference = tmp_path / "alds.csv"
    pd.DataFrame({"method": "alds", "params_kept": [0.5, 0.1], "accuracy": [0.6, 0.1]}).to_csv(reference, index=False)
    rows = [row(s, accuracy=0.9 - s / 2, seed=seed, blocking=b) for s in (0, 0.5, 0.95) for seed in (0, 1) for b in ("none", "square")]
    paths = draw_figure3(table(*rows), tmp_path / "out" / "figure3", reference=read_reference(reference, "accuracy"))
    assert [p.suffix for p in paths] == [".png", ".pdf"] and all(p.stat().st_size > 5000 for p in paths)
    nothing = float("nan")  # as an empty field is read
    draw_figure3(table(*rows, row(method="alds", blocking=nothing, scorer=nothing)), tmp_path / "alds.png")
    text = accuracy_table(table(*rows))
    assert "90.0" in text and "42.5" in text
    with pytest.raises(InputError, match="lacks the column loss"):
        read_reference(reference, "loss")
