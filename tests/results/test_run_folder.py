"""Tables that survive a kill and refuse what does not belong to them."""

import itertools

import pandas as pd
import pytest
import yaml
from helpers import RESULT_LAYERS, left_by_a_kill, results_row

from lrp.errors import InputError
from lrp.figure.accuracy import average_over_seeds
from lrp.results.columns import COLUMNS
from lrp.results.run_folder import RunFolder


def test_rows_are_kept_and_continued(tmp_path):
    first = RunFolder(tmp_path, {"seed": 0}, resume=False)
    first.add(results_row(0.5), RESULT_LAYERS)
    again = RunFolder(tmp_path, {"seed": 0}, resume=True)
    assert again.finished(sparsity=0.5) and not again.finished(sparsity=0.6)
    again.add(results_row(0.6), RESULT_LAYERS.assign(sparsity=0.6))
    stored = pd.read_csv(tmp_path / "results.csv")
    assert list(stored.columns) == COLUMNS and stored["sparsity"].tolist() == [0.5, 0.6]
    assert pd.read_csv(tmp_path / "layers.csv")["sparsity"].tolist() == [0.5, 0.6]


def test_a_folder_from_before_an_option_came_goes_on(tmp_path):
    RunFolder(tmp_path, {"recovery": {"lr": 0.1}}, resume=False).add(results_row(0.5), RESULT_LAYERS)
    assert RunFolder(tmp_path, {"recovery": {"lr": 0.1, "hold_out": True}}, resume=True).finished(sparsity=0.5)
    with pytest.raises(InputError, match="recovery.hold_out was True, now False$"):
        RunFolder(tmp_path, {"recovery": {"lr": 0.1, "hold_out": False}}, resume=True)


def test_a_kill_between_the_two_tables_doubles_nothing(tmp_path):
    run = RunFolder(tmp_path, {}, resume=False)
    run.add(results_row(0.5), RESULT_LAYERS)
    both = pd.concat([RESULT_LAYERS, RESULT_LAYERS.assign(sparsity=0.6)])
    both.to_csv(tmp_path / "layers.csv", index=False)
    again = RunFolder(tmp_path, {}, resume=True)
    again.add(results_row(0.6), RESULT_LAYERS.assign(sparsity=0.6))
    assert pd.read_csv(tmp_path / "layers.csv")["sparsity"].tolist() == [0.5, 0.6]


def test_folders_are_refused(tmp_path):
    RunFolder(tmp_path, {"seed": 0, "scorer": {"_target_": "x"}, "threads": 1}, resume=False).add(results_row(), RESULT_LAYERS)
    before = (tmp_path / "results.csv").read_bytes()
    with pytest.raises(InputError, match="resume=false: .*holds finished rows"):
        RunFolder(tmp_path, {"seed": 0}, resume=False)
    with pytest.raises(InputError, match="scorer._target_ was x, now y"):
        RunFolder(tmp_path, {"seed": 0, "scorer": {"_target_": "y"}}, resume=True)
    RunFolder(tmp_path, {"seed": 0, "scorer": {"_target_": "x"}, "threads": 2}, resume=True)  # threads change no result
    assert (tmp_path / "results.csv").read_bytes() == before


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghij"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "it holds aliases"),
        ("[" * 20_000 + "]" * 20_000, "cannot be read"),
        ("!!python/object/apply:os.getcwd []", "cannot be read"),
        ("a: " + "x" * 2**20, "larger than any"),
        ("[1, 2]", "holds no settings"),
        ("\0\0", "cannot be read"),
    ],
)
def test_a_hostile_configuration(text, said, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        RunFolder(tmp_path, {}, resume=True)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600 and str(tmp_path / "config.yaml") in str(error.value)


def test_settings_of_a_folder_are_told_in_one_line(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"a": "two\nlines \x1b[31m"}))
    with pytest.raises(InputError) as error:
        RunFolder(tmp_path, {"a": 1}, resume=True)
    assert "a was two lines \\x1b[31m, now 1" in str(error.value)


def test_settings_of_a_wrong_kind_are_others(tmp_path):
    (tmp_path / "config.yaml").write_text("choices: 3\nscorer: {_target_: lrp.x}\n")
    with pytest.raises(InputError, match="scorer._target_ was|scorer was"):
        RunFolder(tmp_path, {"scorer": {"_target_": "mine.Scorer"}}, resume=True)


def test_a_table_of_details_without_the_keys(tmp_path):
    RunFolder(tmp_path, {}, resume=False).add(results_row(0.5), RESULT_LAYERS)
    (tmp_path / "layers.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match="layers.csv lacks the columns sparsity"):
        RunFolder(tmp_path, {}, resume=True)


def test_what_a_kill_left_is_removed(tmp_path):
    (tmp_path / "states").mkdir()
    for name in (left_by_a_kill("results.csv"), "states/" + left_by_a_kill("rank1-latest.pt")):
        (tmp_path / name).write_text("half")
    RunFolder(tmp_path, {}, resume=True)
    assert not list(tmp_path.rglob(".*"))


def test_a_resumed_table_has_the_labels_of_an_undisturbed_one(tmp_path):
    """What was read again as NaN and what was made as None is one thing: no "exclude=none"."""
    RunFolder(tmp_path, {}, resume=False).add(results_row(0.5, exclude=None, options=None), RESULT_LAYERS)
    again = RunFolder(tmp_path, {}, resume=True)
    again.add(results_row(0.6, exclude=None, options=None), RESULT_LAYERS.assign(sparsity=0.6))
    assert set(average_over_seeds(again.rows)["line"]) == {"variance, whole layers"}


def test_many_other_settings_are_told_in_a_short_line(tmp_path):
    RunFolder(tmp_path, {f"name{i}": 1 for i in range(40)}, resume=False)
    with pytest.raises(InputError, match=r"name5 was 1, now 2; and 34 more$"):
        RunFolder(tmp_path, {f"name{i}": 2 for i in range(40)}, resume=True)


def test_a_row_that_is_computed_again_takes_the_place_of_the_old_one(tmp_path):
    run = RunFolder(tmp_path, {}, resume=False)
    run.add(results_row(0.5, accuracy=0.1), RESULT_LAYERS)
    run.add(results_row(0.6), RESULT_LAYERS.assign(sparsity=0.6))
    run.add(results_row(0.5, accuracy=0.2), RESULT_LAYERS)
    stored = pd.read_csv(tmp_path / "results.csv").set_index("sparsity")
    assert sorted(stored.index) == [0.5, 0.6] and stored.accuracy[0.5] == 0.2
    assert sorted(pd.read_csv(tmp_path / "layers.csv")["sparsity"]) == [0.5, 0.6]


def test_rows_belong_to_what_they_were_made_of(tmp_path):
    """The same data and weights, or a folder of an earlier version, which does not say; a damaged note is one sentence."""
    folder = RunFolder(tmp_path, {}, False, ["sparsity", "a"])
    folder.belongs(data="x", weights="y")
    folder.add({"sparsity": 0.5, "a": 1}, pd.DataFrame({"sparsity": [0.5]}))
    again = RunFolder(tmp_path, {}, True, ["sparsity", "a"])
    again.belongs(data="x", weights="y")
    with pytest.raises(InputError, match="are of other data and of other weights than now"):
        again.belongs(data="z", weights="z")
    for damaged in ('{"data": ', "[1]"):
        (tmp_path / "made_of.json").write_text(damaged)
        with pytest.raises(InputError, match="made_of.json .*; remove it or choose another folder"):
            again.belongs(data="x", weights="y")
    (tmp_path / "made_of.json").unlink()
    again.belongs(data="x", weights="y")
