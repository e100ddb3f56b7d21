"""What SECURITY.md promises, where no other test shows it."""

import json
import pickle
import resource
import socket
import sys

import pandas as pd
import pytest
from deployed import deployed, described
from faults.bad_checkpoints import Canary, as_pt
from faults.damage import parts, together
from helpers import refused
from shell import run_here

import lrp
from lrp.config.build import compose_job
from lrp.cost.report import COLUMNS, Report
from lrp.entries import read_entry, read_state, read_values, write_tensors
from lrp.model.checkpoint import read_checkpoint
from lrp.results.run_folder import RunFolder


@pytest.fixture
def saved(tmp_path):
    """(a saved network's file, what makes its architecture)"""
    model, compressed, _ = deployed("grouped")
    lrp.save(compressed, tmp_path / "network.safetensors")
    return tmp_path / "network.safetensors", lambda: model


@pytest.mark.slow
@pytest.mark.parametrize("write", [pickle.dumps, as_pt, lambda value: as_pt({"a": value}, _use_new_zipfile_serialization=False)])
def test_no_file_executes_code(saved, tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    file, make = saved
    for name in ("a.pt", "a.safetensors", "a.json"):
        (tmp_path / name).write_bytes(write(Canary()))
        for read in (read_entry, read_state, read_values):
            assert read(tmp_path / name, "key") is None
        refused(lambda name=name: lrp.load(tmp_path / name, make), "damaged")
        refused(lambda name=name: read_checkpoint(tmp_path / name), "model.checkpoint")
    folder = tmp_path / "cifar-10-batches-py"  # torchvision would unpickle these, once their MD5 is that of the official ones
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(write(Canary()))
    refused(lambda: compose_job("dataset=cifar10", f"dataset.path={tmp_path}").dataset.load(), "dataset.path")
    assert not (tmp_path / "CANARY").exists()


def test_a_description_names_no_code(saved):
    """Not even with a checksum that fits: a type is compared with those that lrp has, and is never imported."""
    file, make = saved
    for name in ("antigravity.geohash", "this", "os.system"):
        description, tensors = described(file)
        description.pop("sha256")
        next(iter(description["layers"].values()))["type"] = name
        write_tensors(file, tensors, description)
        refused(lambda: lrp.load(file, make), "another architecture", name)
    assert not {"antigravity", "this"} & sys.modules.keys()


@pytest.mark.parametrize("text", [
    "model: {_target_: antigravity.geohash}\n", "!!python/object/apply:os.system ['touch CANARY']\n", "a: !!python/name:os.system\n",
])  # fmt: skip
def test_a_run_folder_names_no_code(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    refused(lambda: RunFolder(tmp_path, {"model": {"_target_": "lrp.model.vgg16.VGG16"}}, resume=True), str(tmp_path))
    assert "antigravity" not in sys.modules and not (tmp_path / "CANARY").exists()


def test_bounds_come_before_memory(saved):
    file, make = saved
    data, before = file.read_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    name = next(name for name in parts(data)[0] if name != "__metadata__")
    for shape in ([10**15], [2**40, 2**40], [10**9]):
        header, tensors = parts(data)
        header[name]["shape"] = shape
        file.write_bytes(together(header, tensors))
        refused(lambda: lrp.load(file, make), "damaged")
    for number in (10**12, 10**6):
        file.write_bytes(data)
        description, tensors = described(file)
        description.pop("sha256")
        next(iter(description["layers"].values()))["blocks"][0][4] = number
        write_tensors(file, tensors, description)
        refused(lambda: lrp.load(file, make), "description is damaged")
    file.write_bytes(together({"__metadata__": {"lrp": "[" * 10**6}}, b""))
    refused(lambda: lrp.load(file, make), "damaged")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


def test_a_report_is_escaped():
    _, compressed, _ = deployed("grouped")
    report = compressed.lrp_report
    rows = pd.DataFrame(report).astype({"layer": object})
    rows.loc[0, "layer"] = "<script>alert(1)</script>"
    hostile = Report(rows, columns=COLUMNS)
    hostile.attrs = json.loads(json.dumps(report.attrs))
    assert "<script>" not in hostile._repr_html_() and "&lt;script&gt;" in hostile._repr_html_()


@pytest.fixture(scope="module")
def job_alone(tmp_path_factory):
    """A job in an empty home and folder, without a network: (where it was, what it tried to reach)."""
    place, reached = tmp_path_factory.mktemp("alone"), []
    with pytest.MonkeyPatch.context() as patch:
        (place / "here").mkdir()
        patch.chdir(place / "here")
        patch.setenv("HOME", str(place / "here"))
        patch.setattr(socket.socket, "connect", lambda self, address: reached.append(address))
        run_here(place / "cache", place / "run", "dataset=mnist_small", "scorer=magnitude", "sparsity.grid=[0.5]", "save=true")
    return place, reached


@pytest.mark.slow
def test_nothing_is_written_elsewhere(job_alone):
    place, _ = job_alone
    assert not list((place / "here").iterdir()) and {folder.name for folder in place.iterdir()} == {"here", "cache", "run"}


@pytest.mark.slow
def test_nothing_is_sent(job_alone):
    assert not job_alone[1]
    assert compose_job("tracker=wandb").tracker.mode == "offline"
