"""Where a network comes from: trained once and cached; a callable gets what it takes."""

import hashlib
import threading

import pytest
import torch
from helpers import one_channel_vgg
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from lrp.config.build import compose_job
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


@pytest.mark.slow
def test_a_network_of_other_threads_is_another_one(tmp_path, tiny):
    """Its weights differ in the last bits; a flipped bit and an entry of an earlier version are not taken either."""
    source = ModelSource("tiny", one_channel_vgg, {}, None, Training(epochs=1, lr=0.05, batch_size=32))
    obtain = lambda: source.obtain(tiny, 0, tmp_path, torch.device("cpu"))[1]  # noqa: E731
    first = obtain()
    (file,) = (tmp_path / "models").glob("*.safetensors")
    state = load_file(file)
    assert first == hashlib.sha256(to_bytes(state)).hexdigest()  # as it was when the file held nothing else
    torch.set_num_threads(2)
    try:
        obtain()
    finally:
        torch.set_num_threads(1)
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
