"""What a tracker was told, kept for a resumed job."""

import json
import time

import pytest

from lrp.tracker.told import Told


@pytest.fixture
def told(tmp_path):
    made = Told(tmp_path / "wandb.json", "id", "name", "group")
    for epoch in (1, 2):
        made.epochs["train"] = epoch
        made.logged()
    made.rows = 1
    made.logged()
    return made


def test_it_is_read_as_it_was_kept(told):
    assert Told.read(told.file, True) == told and told.step == 3
    assert Told.read(told.file, False) == Told(told.file)  # another job in the folder


def test_what_did_not_arrive_is_forgotten(told):
    told.recent[-1]["time"] += 100
    told.keep(lambda state: state["time"] < time.time() + 50)
    assert (told.step, told.rows, told.epochs) == (2, 0, {"train": 2})
    told.rows = 1
    told.logged()
    told.keep(lambda state: False)
    assert (told.step, told.rows, told.epochs) == (0, 0, {})


def test_of_a_run_that_was_ended_everything_arrived(told):
    told.ended()
    again = Told.read(told.file, True)
    again.keep(lambda state: False)
    assert (again.step, again.rows, again.epochs) == (3, 1, {"train": 2})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        '{"step": "a"}',
        '{"other": 1}',
        '{"rows": -1}',
        '{"epochs": [1]}',
        '{"recent": [{"time": 1.0}]}',
        "\x00",
        "[" * 100_000,
        " " * 2**21 + "{}",
    ],
)
def test_a_damaged_file_begins_a_new_run(text, tmp_path, caplog):
    file = tmp_path / "wandb.json"
    file.write_text(text)
    assert Told.read(file, True) == Told(file) and "the tracker begins a new run" in caplog.text


def test_it_is_json(told):
    assert json.loads(told.file.read_text())["id"] == "id"
