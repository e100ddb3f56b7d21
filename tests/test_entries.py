"""Files that say what they were made from and carry a checksum."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from lrp.entries import read_entry, read_state, read_tensors, read_values, write_entry, write_state, write_tensors, write_values

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(True), "c": torch.zeros(0, 4), "d": torch.ones(3, dtype=torch.bfloat16)}


def test_an_entry_is_read_as_it_was_written(tmp_path, caplog):
    file = tmp_path / "a.safetensors"
    write_entry(file, TENSORS, "this")
    first = file.read_bytes()
    found = read_entry(file, "this")
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[name], value) for name, value in TENSORS.items())
    write_entry(file, dict(reversed(TENSORS.items())), "this")
    assert file.read_bytes() == first and not caplog.text
    assert read_entry(tmp_path / "none.safetensors", "this") is None and not caplog.text


def damaged(file, place):
    data = bytearray(file.read_bytes())
    data[place] ^= 0x40
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: write_entry(file, TENSORS, "that"), "made with other settings, weights or images"),
        (lambda file: damaged(file, -1), "its checksum does not fit"),
        (lambda file: damaged(file, file.read_bytes().index(b"this")), "its checksum does not fit"),
        (lambda file: save_file(TENSORS, file), "no checksum"),
        (lambda file: file.write_bytes(file.read_bytes()[:-3]), "not a safetensors file"),
        (lambda file: file.write_bytes(b""), "not a safetensors file"),
    ],
)
def test_an_entry_that_cannot_be_used_is_said_once(change, said, tmp_path, caplog):
    file = tmp_path / "a.safetensors"
    write_entry(file, TENSORS, "this")
    change(file)
    with caplog.at_level(logging.WARNING):
        assert read_entry(file, "this") is None
    assert len(caplog.messages) == 1 and said in caplog.text and f"{file} is not used and is made again" in caplog.text


def test_a_state_keeps_kinds_orders_and_integer_keys(tmp_path):
    weight = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    state = {
        "model": {"w": weight, "tied": weight},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 0.1, "n": None}]},
    }
    state["history"] = [{"epoch": 1, "accuracy": float("nan"), "loss": 0.1 + 0.2}]
    file = tmp_path / "a.safetensors"
    write_state(file, state, "this")
    found = read_state(file, "this")
    assert torch.equal(found["model"]["w"], weight) and found["model"]["w"].stride() == weight.stride()
    assert list(found["optimizer"]["state"]) == [0] and found["optimizer"]["groups"] == [{"lr": 0.1, "n": None}]
    assert found["history"][0]["loss"] == 0.1 + 0.2 and found["history"][0]["accuracy"] != found["history"][0]["accuracy"]
    with pytest.raises(TypeError, match="a state holds no object"):
        write_state(file, {"a": object()}, "this")


def test_a_state_of_an_earlier_version_is_said(tmp_path, caplog):
    torch.save({"model": {}}, tmp_path / "a.pt")
    assert read_state(tmp_path / "a.pt", "this") is None
    assert f"{tmp_path}/a.pt is not used" in caplog.text and "earlier version" in caplog.text


def test_values(tmp_path, caplog):
    file = tmp_path / "a.json"
    assert read_values(file, "this") is None and not caplog.text
    write_values(file, {"accuracy": 0.1 + 0.2, "loss": float("nan")}, "this")
    found = read_values(file, "this")
    assert found["accuracy"] == 0.1 + 0.2 and found["loss"] != found["loss"] and len(found) == 2
    good = file.read_text()
    for text in (
        good.replace("0.3", "0.4"),
        good[:-3],
        "",
        "[]",
        "[" * 100_000,
        '{"accuracy": 1, "loss": 2}',
        good.replace("sha256", "sha25v"),
    ):
        caplog.clear()
        file.write_text(text)
        assert read_values(file, "this") is None and len(caplog.messages) == 1
    file.write_text(good)
    assert read_values(file, "that") is None


def test_other_readers_understand_the_file(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS, {"n": {1: 2.5}})
    assert load_file(tmp_path / "a.safetensors").keys() == TENSORS.keys()
    assert read_tensors(tmp_path / "a.safetensors")[0] == {"n": {"1": 2.5}}
