"""The networks that come with lrp."""

import os
from pathlib import Path

import pytest
import torch

from lrp.cost.count import count_macs, count_params
from lrp.dataset.cifar10 import Cifar10
from lrp.evaluation import evaluate
from lrp.model.loading import load_weights
from lrp.model.resnet20 import ResNet20
from lrp.model.vgg16 import VGG16


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
