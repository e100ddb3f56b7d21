"""Where a network comes from: trained once and cached; a callable gets what it takes."""

import hashlib
import os
import threading

import pytest
import torch
from helpers import one_channel_vgg, refused
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from lrp.config.build import compose_job
from lrp.epochs import listening
from lrp.model.source import ModelSource
from lrp.training import Training


@pytest.mark.slow
def test_torchvision_functions_get_the_number_of_classes():
    job = compose_job("model._target_=torchvision.models.resnet18", "dataset=folder", "dataset.path=x")
    assert job.model.name == "torchvision.models.resnet18"
    assert job.model.arguments(in_channels=3, num_classes=7) == {"num_classes": 7}
    own = compose_job("model=vgg16_slim").model
    assert own.arguments(in_channels=3, num_classes=7) == {"width": 0.125, "in_channels": 3, "num_classes": 7}


@pytest.mark.slow
def test_training_is_cached_and_done_once(tmp_path, tiny, monkeypatch):
    calls = []
    real = Training.__call__
    monkeypatch.setattr(Training, "__call__", lambda self, *args: (calls.append(1), real(self, *args))[1])
    source = ModelSource("tiny", one_channel_vgg, {}, None, Training(epochs=1, lr=0.05, batch_size=32))
    results = []
    threads = [threading.Thread(target=lambda: results.append(source.obtain(tiny, 0, tmp_path, torch.device("cpu")))) for _ in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(calls) == 1 and results[0][1] == results[1][1] and len(results[0][1]) == 64
    a, b = (model.state_dict() for model, _ in results)
    assert all(torch.equal(a[key], b[key]) for key in a)
    model, other = source.obtain(tiny, 1, tmp_path, torch.device("cpu"))
    assert len(calls) == 2 and other != results[0][1]
    bias = model.classifier.bias
    file = next(f for f in (tmp_path / "models").glob("*.safetensors") if torch.equal(load_file(f)["classifier.bias"], bias))
    file.write_bytes(file.read_bytes()[:100])
    assert source.obtain(tiny, 1, tmp_path, torch.device("cpu"))[1] == other and len(calls) == 3


def body(outputs, *after):
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, outputs), *after)


def source(make, epochs=1, checkpoint=None):
    return ModelSource("own", make, {}, checkpoint, Training(epochs=epochs, lr=0.05, batch_size=32))


@pytest.mark.parametrize("make, sentence", [
    (lambda: body(5), "the network has 5 outputs, but made has 10 classes"),
    (lambda: body(1, nn.Flatten(0)), "float32 of shape (2,) for 2 images, but made needs logits"),
    (lambda: nn.Conv2d(3, 10, 3), "float32 of shape (2, 10, 30, 30) for 2 images, but made needs logits"),
])  # fmt: skip
def test_outputs_are_looked_at_before_the_training(data, tmp_path, monkeypatch, make, sentence):
    monkeypatch.setattr(Training, "__call__", lambda *args: pytest.fail("it was trained"))
    for epochs in (0, 1):
        refused(lambda: source(make, epochs).obtain(data, 0, tmp_path, torch.device("cpu")), sentence)


def test_a_network_that_squeezes_single_images(data, tmp_path):
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 10, 32)

        def forward(self, x):
            return self.conv(x).squeeze()

    source(Squeezed, epochs=0).obtain(data, 0, tmp_path, torch.device("cpu"))


def test_checkpoints_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, sentence in (("pipe", "it is a named pipe, not a file"), (".", "it is a folder, not a file"), ("none", "no such file")):
        refused(source(body, checkpoint=str(tmp_path / name)).check, "model.checkpoint=", sentence)


@pytest.mark.slow
def test_a_network_of_other_threads_is_another_one(tmp_path, tiny, monkeypatch):
    """Its weights differ in the last bits; a flipped bit and an entry of an earlier version are not taken either."""
    source = ModelSource("tiny", one_channel_vgg, {}, None, Training(epochs=1, lr=0.05, batch_size=32))
    obtain = lambda: source.obtain(tiny, 0, tmp_path, torch.device("cpu"))[1]  # noqa: E731
    first = obtain()
    (file,) = (tmp_path / "models").glob("*.safetensors")
    state = load_file(file)
    assert first == hashlib.sha256(to_bytes(state)).hexdigest()  # as it was when the file held nothing else
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 2)  # two that run would wait for each other on a busy machine
        obtain()
    assert len(list((tmp_path / "models").glob("*.safetensors"))) == 2
    data = bytearray(file.read_bytes())
    data[-2] ^= 0x40
    for content in (bytes(data), to_bytes(state)):
        file.write_bytes(content)
        assert obtain() == first and file.read_bytes() != content


@pytest.mark.slow
def test_seeds_up_to_the_largest_can_be_trained_with(tmp_path, tiny):
    source = ModelSource("tiny", one_channel_vgg, {}, None, Training(epochs=1, lr=0.05, batch_size=32))
    assert source.obtain(tiny, 2**63 - 1, tmp_path, torch.device("cpu"))[1]


@pytest.mark.slow
def test_the_epochs_of_a_training_in_the_cache_are_told_again(tmp_path, tiny):
    source, told = ModelSource("tiny", one_channel_vgg, {}, None, Training(epochs=2, lr=0.05, batch_size=32)), []
    with listening(told.append):
        for _ in range(2):
            source.obtain(tiny, 0, tmp_path, torch.device("cpu"))
        first, again = told[:2], told[2:]
        assert again == first and [epoch["epoch"] for epoch in first] == [1, 2]
        (table,) = (tmp_path / "models").glob("*.csv")
        table.write_bytes(b"\xff\x00 no table")  # it decides nothing
        source.obtain(tiny, 0, tmp_path, torch.device("cpu"))
        table.unlink()
        source.obtain(tiny, 0, tmp_path, torch.device("cpu"))
    assert len(told) == 4
