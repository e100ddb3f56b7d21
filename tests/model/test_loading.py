"""Checkpoints that load or say why not."""

import os
from pathlib import Path

import pytest
import torch
from helpers import one_channel_vgg
from safetensors.torch import save_file

from lrp.errors import InputError
from lrp.model.loading import load_weights


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_checkpoints_round_trip(tmp_path, suffix):
    model, other = one_channel_vgg(), one_channel_vgg()
    half = {key: value.half() if value.dim() == 4 else value for key, value in model.state_dict().items()}
    file = tmp_path / f"weights{suffix}"
    save_file(half, file) if suffix == ".safetensors" else torch.save({"state_dict": half, "epoch": 3}, file)
    load_weights(other, file)
    for key, value in other.state_dict().items():
        assert value.dtype == model.state_dict()[key].dtype and torch.equal(value, half[key].to(value.dtype))


def test_what_does_not_fit_is_named(tmp_path):
    state = one_channel_vgg().state_dict()
    state["extra.weight"] = torch.zeros(2)
    del state["classifier.bias"]
    state["features.0.weight"] = torch.zeros(2, 1, 5, 5)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(InputError) as error:
        load_weights(one_channel_vgg(), tmp_path / "a.safetensors")
    for part in ("missing classifier.bias", "not in the network extra.weight", "features.0.weight (2, 1, 5, 5) instead of (2, 1, 3, 3)"):
        assert part in str(error.value)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/lrp-executed",)


def test_a_pickle_is_never_executed(tmp_path):
    torch.save({"state_dict": Evil()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="weights_only"):
        load_weights(one_channel_vgg(), tmp_path / "a.pt")
    assert not Path("/tmp/lrp-executed").exists()


def test_truncated_and_not_finite(tmp_path):
    state = one_channel_vgg().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as a safetensors file"):
        load_weights(one_channel_vgg(), tmp_path / "a.safetensors")
    state["classifier.bias"] = state["classifier.bias"] * float("nan")
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="not finite in classifier.bias"):
        load_weights(one_channel_vgg(), tmp_path / "b.safetensors")
