"""Tables that survive a kill and refuse what does not belong to them."""

import pandas as pd
import pytest
from helpers import RESULT_LAYERS, results_row

from lrp.errors import InputError
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
