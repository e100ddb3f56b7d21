"""Fine-tuning: goes on after a kill bit for bit, trains the factors at their ranks, learns from labels and from the teacher."""

import copy
import dataclasses
import logging

import pandas as pd
import pytest
import torch
from cases import Strided
from torch import nn
from torch.nn import functional as F

from lrp.compression import compress
from lrp.dataset.base import Data, Part, divide
from lrp.entries import read_state, read_tensors
from lrp.errors import InputError
from lrp.layer.base import LowRank
from lrp.recovery.context import Context
from lrp.recovery.finetune import FinetuneRecovery, _breaks, distillation

pytestmark = pytest.mark.slow

PLAIN = {"scorer": "magnitude", "selection": "global", "decomposition": "svd", "compensation": "none", "recovery": "none"}


def made(count, seed):
    """Noise of 10 x 10 in three channels with a bright corner, which is the label."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 120, (count, 3, 10, 10), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 4, (count,), generator=generator)
    for image, label in zip(images, labels.tolist()):
        image[:, 5 * (label // 2) :, 5 * (label % 2) :][:, :5, :5] += 60
    return Part(images, labels, torch.arange(count))


@pytest.fixture
def tiny():
    return Data("made", made(96, 0), made(50, 1), made(50, 2), (0.3, 0.3, 0.3), (0.2, 0.2, 0.2), 1, False, 4)


@pytest.fixture
def networks(tiny):
    """A dense network, not trained, and the same_state pruned."""
    dense = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True),
        nn.Conv2d(12, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4),
    ).eval()  # fmt: skip
    images = tiny.normalise(tiny.train.images[:32])
    return dense, compress(dense, images, 0.5, **PLAIN, exclude=["0"])[0]


SPEC = FinetuneRecovery(epochs=3, lr=0.05, batch_size=32)


def finetuned(networks, data, spec=SPEC, **given):
    """The state dict of the pruned network after training."""
    dense, pruned = networks
    model = copy.deepcopy(pruned)
    spec(model, Context(images=list, data=data, teacher=dense, **given))
    return model.state_dict()


def stored(file):
    return read_state(file, read_tensors(file)[0]["made_from"])


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("distill", [0, 0.5])
def test_resumes_bit_for_bit_and_repeats_nothing(networks, tiny, tmp_path, monkeypatch, distill):
    spec = dataclasses.replace(SPEC, distill=distill)
    whole = finetuned(networks, tiny, spec, unfinished=tmp_path / "whole.pt")
    assert same(whole, finetuned(networks, tiny, spec))
    real, calls = FinetuneRecovery._epoch, []

    def dies_in_second(self, *args):
        calls.append(args[-1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(FinetuneRecovery, "_epoch", dies_in_second)
    with pytest.raises(KeyboardInterrupt):
        finetuned(networks, tiny, spec, unfinished=tmp_path / "killed.pt")
    assert same(whole, finetuned(networks, tiny, spec, unfinished=tmp_path / "killed.pt"))
    assert calls == [0, 1, 1, 2]
    assert same(whole, finetuned(networks, tiny, spec, unfinished=tmp_path / "killed.pt")) and len(calls) == 4
    state = stored(tmp_path / "killed.pt")
    assert same(state["model"], whole) and len(state["optimizer"]["state"]) == len(list(networks[1].parameters()))
    table = pd.read_csv(tmp_path / "killed.csv")
    assert not state["model"]["0.weight"].is_contiguous()  # it was trained in channels_last order
    assert list(table) == ["epoch", "loss", "validation_accuracy", "seconds"] and table["epoch"].tolist() == [1, 2, 3]
    assert table["loss"].equals(pd.read_csv(tmp_path / "whole.csv")["loss"])


@pytest.mark.parametrize("change", [
    {"lr": 0.04}, {"epochs": 2}, {"distill": 0.5}, {"images": 64}, "seed", "weights", "labels", "output", "damage",
])  # fmt: skip
@pytest.mark.long
def test_another_training_is_not_resumed(networks, tiny, tmp_path, caplog, change):
    file, spec, given = tmp_path / "x.pt", SPEC, {}
    finetuned(networks, tiny, unfinished=file)
    if isinstance(change, dict):
        spec = dataclasses.replace(SPEC, **change)
    elif change == "seed":
        given = {"seed": 1}
    elif change == "output":
        given = {"output": "mine.pick"}
    elif change == "weights":
        networks = (networks[0], copy.deepcopy(networks[1]))
        networks[1][-1].bias.data[0] += 1
    elif change == "labels":
        tiny = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, labels=tiny.train.labels.flip(0)))
    else:
        file.write_bytes(file.read_bytes()[:-200])
    with caplog.at_level(logging.WARNING):
        again = finetuned(networks, tiny, spec, unfinished=file, **given)
    assert "is made again" in caplog.text and ("other settings" in caplog.text) == (change != "damage")
    assert same(again, finetuned(networks, tiny, spec, **given))


def test_trains_the_factors_at_their_ranks(networks, tiny, tmp_path):
    dense, pruned = networks
    model = copy.deepcopy(pruned)
    model[3].train()
    parameters, modes = list(model.parameters()), [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    FinetuneRecovery(epochs=12, lr=0.1, batch_size=32)(model, Context(list, tiny, unfinished=tmp_path / "a.pt"))
    layers = [module for module in model.modules() if isinstance(module, LowRank)]
    assert len(layers) == 3
    for layer, (name, _) in zip(layers, [pair for pair in pruned.named_modules() if isinstance(pair[1], LowRank)]):
        for kind in ("U", "V"):
            for key, factor in getattr(layer, kind).items():
                was = before[f"{name}.{kind}.{key}"]
                assert factor.shape == was.shape and not torch.equal(factor, was)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    losses = pd.read_csv(tmp_path / "a.csv")["loss"]
    assert losses.iloc[-1] < losses.iloc[0] - 0.5


def test_distillation_is_hintons():
    """Against sums written out; its gradient at a high temperature is that of the logits' squared distance, over the classes."""
    torch.manual_seed(1)
    z, taught = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.randn(5, 4, dtype=torch.float64)
    labels = torch.arange(5) % 4
    p, q = (taught / 3).exp(), (z / 3).exp()
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    kl, ce = (p * (p / q).log()).sum(1).mean(), F.cross_entropy(z, labels)
    for share in (0.3, 1):
        found = distillation(lambda images: (images, 0), share, 3.0, lambda result: result[0])(z, labels, taught)
        assert torch.allclose(found, share * 9 * kl + (1 - share) * ce, rtol=1e-12)
    (gradient,) = torch.autograd.grad(distillation(lambda images: images, 1, 1e6, None)(z, labels, taught), z)
    change = (z - taught).detach()
    assert torch.allclose(gradient, (change - change.mean(1, keepdim=True)) / 4 / 5, rtol=1e-3, atol=1e-6)


def test_teacher_alone_ignores_labels_and_is_unchanged(networks, tiny):
    dense = networks[0].train()
    before = copy.deepcopy(dense.state_dict())
    other = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, labels=tiny.train.labels.roll(1)))
    alone = dataclasses.replace(SPEC, distill=1, epochs=1)
    assert same(finetuned(networks, tiny, alone), finetuned(networks, other, alone))
    both = dataclasses.replace(alone, distill=0.9)
    assert not same(finetuned(networks, tiny, both), finetuned(networks, other, both))
    assert same(before, dense.state_dict()) and all(module.training for module in dense.modules())
    assert all(parameter.grad is None for parameter in dense.parameters())
    dense.eval()


@pytest.mark.parametrize("distill", [0, 0.5])
def test_bfloat16(networks, tiny, distill):
    """Near the float32 training and not it; what is kept stays in float32."""
    spec = dataclasses.replace(SPEC, epochs=1, distill=distill)
    single, half = (finetuned(networks, tiny, dataclasses.replace(spec, precision=name)) for name in ("float32", "bfloat16"))
    assert all(half[key].dtype == value.dtype for key, value in single.items())
    weights = [key for key, value in single.items() if value.dim() > 1]
    assert 0 < max(float((half[key] - single[key]).norm() / single[key].norm()) for key in weights) < 0.1


def test_seeds_and_subsets(networks, tiny):
    spec = dataclasses.replace(SPEC, epochs=1, images=64)
    first = finetuned(networks, tiny, spec)
    assert same(first, finetuned(networks, tiny, spec)) and not same(first, finetuned(networks, tiny, spec, seed=1))
    used = torch.randperm(96, generator=torch.Generator().manual_seed(0))[:64]
    smaller = dataclasses.replace(tiny, train=tiny.train.take(used))
    assert same(first, finetuned(networks, smaller, dataclasses.replace(spec, images=None)))
    with pytest.raises(InputError, match="^recovery.images=97: the training part of made holds 96 images$"):
        finetuned(networks, tiny, dataclasses.replace(spec, images=97))


def test_validation_images_are_trained_on_where_they_are_not_held_out(networks, tiny, tmp_path):
    spec, whole = dataclasses.replace(SPEC, epochs=1), made(96, 3)
    fit, validation = divide(whole)
    data, joined = dataclasses.replace(tiny, train=fit, validation=validation), dataclasses.replace(tiny, train=whole)
    found = finetuned(networks, data, dataclasses.replace(spec, hold_out=False), unfinished=tmp_path / "all.pt")
    assert same(found, finetuned(networks, joined, spec)) and not same(found, finetuned(networks, data, spec))
    assert pd.read_csv(tmp_path / "all.csv")["validation_accuracy"].isna().all()
    assert "hold_out" not in spec.identity  # files of before the option came are still resumed
    with pytest.raises(InputError, match="^recovery.images=97: the training set of made holds 96 images$"):
        finetuned(networks, data, dataclasses.replace(spec, images=97, hold_out=False))


@pytest.mark.parametrize("name, value", [
    ("hold_out", "no"),
    ("precision", "half"),
    ("epochs", 0), ("epochs", 1.5), ("lr", 0), ("lr", float("nan")), ("momentum", 1), ("weight_decay", -1), ("batch_size", 1),
    ("distill", -0.1), ("distill", 1.1), ("distill", True), ("distill", None), ("temperature", 0), ("images", 1), ("images", "all"),
])  # fmt: skip
def test_bad_options(name, value):
    with pytest.raises(InputError, match=f"^recovery.{name}=") as error:
        FinetuneRecovery(**{name: value})
    assert "\n" not in str(error.value)


def test_what_cannot_be_trained(networks, tiny):
    dense, pruned = networks
    with pytest.raises(InputError, match="recovery=finetune: it needs labelled training images.*python -m lrp.run"):
        SPEC(pruned, Context(images=list))
    with pytest.raises(InputError, match="recovery.distill=0.5: .*teacher"):
        dataclasses.replace(SPEC, distill=0.5)(pruned, Context(images=list, data=tiny))
    with pytest.raises(InputError, match="nothing to train"):
        SPEC(copy.deepcopy(pruned).requires_grad_(False), Context(images=list, data=tiny))
    for few in (32, 96):  # the only step, and one of several
        with pytest.raises(InputError, match=r"^recovery.lr=1e\+30: the training diverged"):
            finetuned(networks, tiny, dataclasses.replace(SPEC, epochs=1, lr=1e30, images=few))
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 4), nn.BatchNorm1d(4))
    with pytest.raises(InputError, match="^recovery=finetune: Expected more than 1 value"):
        dataclasses.replace(SPEC, images=33)(model, Context(images=list, data=tiny))


@pytest.mark.parametrize("crop", [0, 4])
def test_dense_network_and_one_that_breaks_in_channels_last(tiny, crop):
    """Nothing was pruned, and it is trained all the same_state."""
    model = Strided()
    before = model.down.weight.clone()

    def grey(part):  # with the strides of images as the data sets read them
        return dataclasses.replace(part, images=part.images[:, :1].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))

    data = dataclasses.replace(tiny, train=grey(tiny.train), validation=grey(tiny.validation), mean=(0.3,), std=(0.2,), crop=crop)
    FinetuneRecovery(epochs=1, batch_size=32)(model, Context(list, data, pick=lambda result: result["logits"]))
    assert model.seen
    assert not torch.equal(before, model.down.weight)


def test_layers_that_break():
    convolutions = {True: nn.Conv2d(4, 8, 1, 2), False: nn.Conv2d(8, 8, 1, 2)}
    for breaks, layer in convolutions.items():
        assert _breaks(layer) == breaks and not _breaks(nn.Conv2d(4, 8, 3, 2)) and not _breaks(nn.Conv2d(4, 8, 1))
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1, 2), nn.Flatten(), nn.LazyLinear(10))
    x = torch.randn(4, 3, 8, 8)
    model(x)
    for blocking, breaks in (("none", False), ("alds", True)):  # of four groups of channels each sees four
        pruned, _ = compress(model.eval(), x, 0.5, blocking=blocking, **PLAIN, exclude=["0", "3"])
        assert isinstance(pruned[1], LowRank) and _breaks(pruned[1]) == breaks
