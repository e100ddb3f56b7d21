"""Files of weights in the layouts that people have, and damaged ones: tensors, or one sentence."""

import argparse
import hashlib
import io
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import refused
from safetensors.torch import load_file, save_file
from torch import nn

from lrp.model.checkpoint import contents, dictionaries, read_checkpoint
from lrp.model.resnet20 import ResNet20


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.pt"


STATE = nn.Linear(3, 2).state_dict()
np.savez(held := io.BytesIO(), a=np.ones(3))
NPZ = held.getvalue()


@pytest.mark.parametrize("write, sentence", [
    (lambda f: None, "no such file"),
    (lambda f: f.mkdir(), "it is a folder, not a file"),
    (lambda f: os.mkfifo(f), "it is a named pipe, not a file"),
    (lambda f: f.symlink_to("/dev/zero"), "it is a device, not a file"),
    (lambda f: f.write_bytes(b""), "the file is empty"),
    (lambda f: f.write_text("hello"), "it is damaged, or not a file of torch.save"),
    (lambda f: f.write_text("<!DOCTYPE html><html>"), "it is damaged, or not a file of torch.save"),
    (lambda f: f.write_text('{"weight_map": {}}'), "it is damaged, or not a file of torch.save"),
    (lambda f: f.write_bytes(b"PK\3\4" + b"a" * 100), "it is damaged, or not a file of torch.save"),
    (lambda f: f.write_bytes(b"\x80\x02}q\x00."), "it is damaged, or not a file of torch.save"),
    (lambda f: f.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "is a Git LFS pointer"),
    (lambda f: f.write_bytes(NPZ), "it is damaged, or not a file of torch.save"),
    (lambda f: torch.jit.save(torch.jit.script(nn.Linear(3, 2)), f), "it holds a TorchScript program"),
    (lambda f: torch.save(nn.Linear(3, 2), f), "it holds torch.nn.modules.linear.Linear"),
    (lambda f: torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}, f), "it holds argparse.Namespace besides tensors"),
    (lambda f: torch.save({"state_dict": STATE, "path": Path("a")}, f), "it holds pathlib.PosixPath besides tensors"),
    (lambda f: torch.save({"net": STATE, "acc": np.float64(91)}, f), ".multiarray.scalar"),
    (lambda f: torch.save({"a": argparse.Namespace()}, f, _use_new_zipfile_serialization=False), "it holds argparse.Namespace besides"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_files_that_are_none_of_tensors(file, write, sentence):
    """No word of how to switch the protection off."""
    write(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = refused(lambda: read_checkpoint(file), f"model.checkpoint={file}: ", sentence)
    assert "Re-running" not in text and "add_safe_globals" not in text and "\x1b" not in text and "to `False`" not in text


def test_files_that_would_grow(file):
    torch.save({"weight": torch.zeros(10**6)}, file)
    with zipfile.ZipFile(file) as stored:
        records = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in records.items():
            packed.writestr(name, data)
    refused(lambda: read_checkpoint(file), "are compressed, and would become 4,0")


@pytest.mark.parametrize("old", [False, True])
def test_every_length_is_refused(file, old):
    torch.save(STATE, file, _use_new_zipfile_serialization=not old)
    data = file.read_bytes()
    for length in (0, 1, 3, 9, len(data) // 3, len(data) // 2, len(data) - 30):
        file.write_bytes(data[:length])
        refused(lambda: read_checkpoint(file), "model.checkpoint=")


def test_names_in_a_file_cannot_paint_the_terminal(file):
    torch.save({"\x1b[31mred\n": 3, "x" * 500: 1}, file)
    assert contents(read_checkpoint(file)) == f"a dictionary of ?[31mred?, {'x' * 117}..."


def test_safetensors_are_known_by_their_first_bytes(tmp_path):
    save_file(STATE, tmp_path / "a.bin")
    torch.save(STATE, tmp_path / "b.safetensors")
    for name in ("a.bin", "b.safetensors"):
        assert torch.equal(read_checkpoint(tmp_path / name)["weight"], STATE["weight"])


def test_dictionaries_are_found_wherever_they_are():
    held = {
        "epoch": 3,
        "model": {"state_dict": STATE},
        "all": [{"ema": STATE | {"step": 4}}],
        "optimizer": {"state": {0: {"step": STATE["bias"]}}},
    }
    held["self"] = held
    found = dictionaries(held)
    assert list(found) == ["model.state_dict", "all.0.ema", "optimizer.state.0"]
    assert found["model.state_dict"] is STATE and list(found["all.0.ema"]) == ["weight", "bias"]
    assert dictionaries({1: STATE["bias"]}) == {} == dictionaries([]) == dictionaries({})


def test_contents():
    assert contents({}) == "an empty dictionary" and contents([1]) == "an object of the type list"
    assert contents({i: i for i in range(6)}) == "a dictionary of 0, 1, 2, 3 and 2 more"


def test_the_weights_that_come_with_the_repository():
    """They are those that the tables name, and fit the network."""
    root = Path(__file__).parents[2] / "experiments"
    file = root / "checkpoints" / "resnet20_cifar10.safetensors"
    named = pd.read_csv(root / "results" / "cited.csv")["checkpoint_sha256"].unique()
    assert hashlib.sha256(file.read_bytes()).hexdigest() in named
    ResNet20().load_state_dict(load_file(file))
