"""Checkpoints that load or say why not; training that goes on after a kill; batch norm re-estimation; evaluation."""

import dataclasses
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lrp.cost.count import count_macs, count_params
from lrp.dataset.cifar10 import Cifar10
from lrp.dataset.mnist_small import MnistSmall
from lrp.errors import InputError
from lrp.evaluation import evaluate
from lrp.model.loading import load_weights
from lrp.model.resnet20 import ResNet20
from lrp.model.source import ModelSource
from lrp.model.vgg16 import VGG16
from lrp.recovery.batchnorm import BatchNormRecovery
from lrp.recovery.context import Context
from lrp.training import Training


@pytest.fixture(scope="module")
def tiny():
    """The embedded digits, cut down so that an epoch takes a moment."""
    data = MnistSmall().load()
    few = torch.arange(96)
    return dataclasses.replace(data, train=data.train.take(few), validation=data.validation.take(few), test=data.test.take(few))


def make(in_channels=1, num_classes=10):
    return VGG16(in_channels, num_classes, width=1 / 32)


def test_vgg16_is_the_network_of_the_paper():
    with torch.device("meta"):
        model = VGG16()
    assert count_params(model) == 14_728_266
    assert count_macs(model, torch.empty(1, 3, 32, 32, device="meta")) == 313_201_664


def test_resnet20_is_that_of_he_et_al():
    with torch.device("meta"):
        model = ResNet20()
    assert count_params(model) == 272_474
    keys = {name.rsplit(".", 1)[0] for name in model.state_dict()}
    blocks = {f"layer{i}.{j}.{part}" for i in (1, 2, 3) for j in (0, 1, 2) for part in ("conv1", "bn1", "conv2", "bn2")}
    assert keys == {"conv1", "bn1", "fc", *blocks, *(f"layer{i}.0.downsample.{j}" for i in (2, 3) for j in (0, 1))}
    y = ResNet20(1, 7, width=0.25)(torch.randn(2, 1, 32, 32))
    assert y.shape == (2, 7)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_checkpoints_round_trip(tmp_path, suffix):
    model, other = make(), make()
    half = {key: value.half() if value.dim() == 4 else value for key, value in model.state_dict().items()}
    file = tmp_path / f"weights{suffix}"
    save_file(half, file) if suffix == ".safetensors" else torch.save({"state_dict": half, "epoch": 3}, file)
    load_weights(other, file)
    for key, value in other.state_dict().items():
        assert value.dtype == model.state_dict()[key].dtype and torch.equal(value, half[key].to(value.dtype))


def test_what_does_not_fit_is_named(tmp_path):
    state = make().state_dict()
    state["extra.weight"] = torch.zeros(2)
    del state["classifier.bias"]
    state["features.0.weight"] = torch.zeros(2, 1, 5, 5)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(InputError) as error:
        load_weights(make(), tmp_path / "a.safetensors")
    for part in ("missing classifier.bias", "not in the network extra.weight", "features.0.weight (2, 1, 5, 5) instead of (2, 1, 3, 3)"):
        assert part in str(error.value)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/lrp-executed",)


def test_a_pickle_is_never_executed(tmp_path):
    torch.save({"state_dict": Evil()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="weights_only"):
        load_weights(make(), tmp_path / "a.pt")
    assert not Path("/tmp/lrp-executed").exists()


def test_truncated_and_not_finite(tmp_path):
    state = make().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as a safetensors file"):
        load_weights(make(), tmp_path / "a.safetensors")
    state["classifier.bias"] = state["classifier.bias"] * float("nan")
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="not finite in classifier.bias"):
        load_weights(make(), tmp_path / "b.safetensors")


def test_training_resumes_bit_for_bit(tmp_path, tiny, monkeypatch):
    spec = Training(epochs=3, lr=0.05, batch_size=32)

    def train(file):
        torch.manual_seed(0)
        model = make()
        spec(model, tiny, 5, file)
        return model.state_dict()

    whole = train(tmp_path / "whole.pt")
    real, calls = Training._epoch, []

    def dies_in_third(self, *args):
        calls.append(args[-1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(Training, "_epoch", dies_in_third)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed.pt")
    resumed = train(tmp_path / "killed.pt")
    assert calls == [0, 1, 2, 2]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_training_is_cached_and_done_once(tmp_path, tiny, monkeypatch):
    calls = []
    real = Training.__call__
    monkeypatch.setattr(Training, "__call__", lambda self, *args: (calls.append(1), real(self, *args))[1])
    source = ModelSource("tiny", make, {}, None, Training(epochs=1, lr=0.05, batch_size=32))
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


def test_momentum_swings_around_what_is_asked(tmp_path, tiny, monkeypatch):
    seen = []
    real = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, *args: (seen.append(self.param_groups[0]["momentum"]), real(self, *args))[1])
    for momentum in (0.9, 0.8):
        seen.clear()
        Training(epochs=2, lr=0.05, batch_size=32, momentum=momentum)(make(), tiny, 0, tmp_path / f"{momentum}.pt")
        assert abs(seen[0] - momentum - 0.05) < 1e-9 and min(seen) >= momentum - 0.05 - 1e-9 and min(seen) < momentum - 0.03
    assert "swing" not in Training().identity and "swing" in Training(momentum=0.8).identity
    with pytest.raises(InputError, match="^model.training.momentum=0.95: must be a number greater than 0.05 and less than 0.95$"):
        Training(momentum=0.95)


def test_divergence_is_a_sentence(tmp_path, tiny):
    with pytest.raises(InputError, match="model.training.lr=1e.*diverged"):
        Training(epochs=1, lr=1e30, batch_size=32)(make(), tiny, 0, tmp_path / "x.pt")


def test_batchnorm_statistics_are_the_cumulative_average():
    """Against means and variances computed by hand; no weight, mode or momentum changes."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, momentum=0.3)
    ).double()
    model.eval()
    model[2].train()
    images = [torch.randn(4, 1, 6, 6).double() for _ in range(3)]
    weights = {name: p.clone() for name, p in model.named_parameters()}
    BatchNormRecovery()(model, Context(lambda: images))
    with torch.no_grad():
        outputs = [model[0](x) for x in images]
        normalised = [nn.functional.batch_norm(y, None, None, model[1].weight, model[1].bias, training=True) for y in outputs]
        deeper = [model[3](y) for y in normalised]  # dropout was off: re-estimation runs everything else in eval mode
    for norm, values in ((model[1], outputs), (model[4], deeper)):
        assert torch.allclose(norm.running_mean, torch.stack([v.mean((0, 2, 3)) for v in values]).mean(0))
        assert torch.allclose(norm.running_var, torch.stack([v.var((0, 2, 3)) for v in values]).mean(0))
    assert [m.training for m in model] == [False, False, True, False, False]
    assert (model[1].momentum, model[4].momentum) == (0.1, 0.3)
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())


def test_evaluation_against_a_loop(tiny):
    model = make().eval()
    metrics = evaluate(model, tiny, tiny.test, 7)
    right, loss = 0, 0.0
    with torch.no_grad():
        for image, label in zip(tiny.test.images, tiny.test.labels):
            logits = model(tiny.normalise(image[None])).double()[0]
            right += int(logits.argmax() == label)
            loss -= float(logits.log_softmax(0)[label]) / len(tiny.test)
    assert metrics.accuracy == right / len(tiny.test) and metrics.loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.skipif("CHECKPOINT" not in os.environ or "DATA" not in os.environ, reason="set CHECKPOINT and DATA to try a trained VGG16")
def test_given_checkpoint():
    data = Cifar10(path=os.environ["DATA"]).load()
    model = VGG16()
    load_weights(model, Path(os.environ["CHECKPOINT"]))
    assert evaluate(model.eval(), data, data.test, 250).accuracy == pytest.approx(0.9119, abs=2e-4)


@pytest.mark.skipif("RESNET" not in os.environ or "DATA" not in os.environ, reason="set RESNET and DATA to try a trained ResNet-20")
def test_given_residual_checkpoint():
    data = Cifar10(path=os.environ["DATA"]).load()
    model = ResNet20()
    load_weights(model, Path(os.environ["RESNET"]))
    assert evaluate(model.eval(), data, data.test, 250).accuracy == pytest.approx(0.8564, abs=2e-4)
