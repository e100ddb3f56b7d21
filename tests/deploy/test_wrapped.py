"""Files saved from and loaded into networks in DataParallel or torch.compile."""

import pytest
import torch
from deployed import file_refused, shaken
from torch import nn

import lrp


def make():
    return nn.Sequential(nn.Conv1d(4, 24, 3), nn.BatchNorm1d(24), nn.ReLU(), nn.Flatten(), nn.Linear(24 * 6, 16)).eval()


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPED = {
    "plain": lambda model: model, "parallel": nn.DataParallel, "compiled": compiled, "both": lambda model: compiled(nn.DataParallel(model)),
    "both, the other way": lambda model: nn.DataParallel(compiled(model)),
    "one layer": lambda model: nn.Sequential(*model[:-1], nn.DataParallel(model[-1])),
}  # fmt: skip


@pytest.fixture(scope="module")
def networks():
    """(dense, compressed, compressed and fused, inputs)"""
    torch.manual_seed(0)
    dense, x = shaken(make()), torch.randn(16, 4, 8)
    compressed, _ = lrp.compress(dense, x, 0.5, scoring_images=4, images=16)
    return dense, compressed, lrp.fuse(compressed), x


@pytest.mark.slow
@pytest.mark.parametrize("into", WRAPPED)
@pytest.mark.parametrize("out_of", WRAPPED)
def test_every_wrapper_into_every_other(networks, tmp_path, out_of, into):
    *models, x = networks
    for model in models:
        lrp.save(WRAPPED[out_of](model), tmp_path / "a.safetensors")
        loaded = lrp.load(tmp_path / "a.safetensors", lambda: WRAPPED[into](make()))
        assert type(loaded) is type(WRAPPED[into](make()))
        plain = lrp.load(tmp_path / "a.safetensors", make)
        assert torch.equal(plain(x), model(x)) and torch.equal(loaded(x), model(x))


def test_out_of_averaged_weights(networks, tmp_path):
    *_, model, x = networks
    lrp.save(torch.optim.swa_utils.AveragedModel(model), tmp_path / "a.safetensors")
    assert torch.equal(lrp.load(tmp_path / "a.safetensors", make)(x), model(x))
    for saved in (model, nn.DataParallel(model)):
        lrp.save(saved, tmp_path / "a.safetensors")
        assert torch.equal(lrp.load(tmp_path / "a.safetensors", lambda: torch.optim.swa_utils.AveragedModel(make()))(x), model(x))


def test_a_wrapper_hides_nothing_that_does_not_fit(networks, tmp_path):
    path = tmp_path / "a.safetensors"
    lrp.save(nn.DataParallel(networks[1]), path)
    file_refused(path, lambda: make()[:-1], "it has a Linear 4, this one lacks it")
    file_refused(path, lambda: nn.Sequential(*make(), nn.Linear(16, 3)), "this one has 5.weight, 5.bias, which the file lacks")


@pytest.mark.slow
def test_one_layer_in_torch_compile(tmp_path):
    """Replaced, it would still be called as the dense one that it was."""
    layer, x = nn.Linear(32, 32), torch.randn(64, 32)
    lrp.save(lrp.compress(layer, x)[0], tmp_path / "a.safetensors")
    file_refused(tmp_path / "a.safetensors", lambda: compiled(nn.Linear(32, 32)), "torch.compile would go on calling the layer")
