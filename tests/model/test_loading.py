"""Checkpoints that load or say why not."""

import copy
import logging
import os
from pathlib import Path

import pytest
import torch
from helpers import one_channel_vgg, refused, same_state
from safetensors.torch import save_file
from torch import nn

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


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


STATE = {name: value + 1 for name, value in small().state_dict().items()}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.pt"


def loads(file, model=None):
    """The network, which holds STATE in its precision."""
    model = small(1) if model is None else model
    load_weights(model, file)
    assert all(
        torch.equal(value, STATE[name.removeprefix("module.").removeprefix("_orig_mod.")]) for name, value in model.state_dict().items()
    )


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "model.", "model.module._orig_mod.", "net.body."])
def test_wrappers_are_left_off_and_said(file, caplog, prefix):
    caplog.set_level(logging.INFO)
    torch.save({prefix + name: value for name, value in STATE.items()}, file)
    loads(file)
    assert (f"{prefix} is left off the names" in caplog.text) if prefix else not caplog.text


def test_wrappers_inside(file, caplog):
    """As where only some layers were run in parallel, or compiled."""
    caplog.set_level(logging.INFO)
    torch.save({name.replace("0.", "0.module.").replace("2.", "2._orig_mod."): value for name, value in STATE.items()}, file)
    loads(file)
    assert "module. and _orig_mod. is left off" in caplog.text


def test_a_wrapped_network_takes_plain_weights(file):
    torch.save(STATE, file)
    loads(file, nn.DataParallel(small(1)))


@pytest.mark.slow
def test_a_compiled_network_takes_plain_weights(file):
    torch.save(STATE, file)
    loads(file, torch.compile(small(1), backend="eager"))


def test_averaged_weights(file):
    averaged = torch.optim.swa_utils.AveragedModel(small())
    averaged.module.load_state_dict(STATE)
    torch.save(averaged.state_dict(), file)
    loads(file)


def test_a_prefix_that_is_a_part_of_the_network_stays(file):
    """Names that fit as they are, and prefixes that only some share."""
    inner = nn.Module()
    inner.module = small()
    torch.save(inner.state_dict(), file)
    other = copy.deepcopy(inner)
    other.module[0].weight.data.zero_()
    load_weights(other, file)
    assert same_state(inner, other)
    torch.save({"module.0.weight" if name == "0.weight" else f"model.{name}": value for name, value in STATE.items()}, file)
    refused(lambda: load_weights(small(), file), "it does not fit the network: missing ")


@pytest.mark.parametrize("held", [
    {"model_state_dict": STATE, "optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}}, "epoch": 3, "loss": torch.tensor(0.1)},
    {"net": STATE, "acc": 91.0}, {"params": STATE}, {"params": STATE, "params_ema": STATE}, {"model": {"state_dict": STATE}},
    {"state_dict": {"model": STATE}}, {"a": {"b": {"c": STATE}}}, [STATE, {"state": {}}], {**STATE, "epoch": 3},
    {"model": {"module." + name: value for name, value in STATE.items()}},
])  # fmt: skip
def test_layouts_of_checkpoints(file, held):
    torch.save(held, file)
    loads(file)


def test_state_dict_and_model_go_before_other_keys(file, caplog):
    caplog.set_level(logging.INFO)
    other = {name: value * 0 for name, value in STATE.items()}
    for key in ("state_dict", "model"):
        torch.save({"ema": other, key: STATE}, file)
        loads(file)
        assert f"the weights are those under {key}, not those under ema" in caplog.text


@pytest.mark.parametrize("held, sentence", [
    ({"params": STATE, "params_ema": {**STATE}}, "several of its parts fit the network: params, params_ema; save the one"),
    ({1: torch.ones(2)}, "it does not hold a dictionary of tensors by their names, but a dictionary of 1"),
    ({}, "but an empty dictionary"), (torch.ones(2), "but an object of the type Tensor"), ("text", "but an object of the type str"),
    ({"epoch": 3, "args": {"lr": 0.1}}, "but a dictionary of epoch, args"),
    ({"a": {"x": torch.ones(1)}, "b": STATE | {"y": torch.ones(1)}}, "under b does not fit the network: not in the network y (nor"),
    ({"module." + k: v for k, v in STATE.items() if k != "0.bias"}, "it does not fit the network: missing 0.bias"),
    (STATE | {"\x1b[31m": torch.ones(1)}, "not in the network ?[31m"),
    (STATE | {"0.weight": torch.ones(2)}, "of another shape 0.weight (2,) instead of (3, 4)"),
])  # fmt: skip
def test_what_does_not_fit_is_one_sentence(file, held, sentence):
    torch.save(held, file)
    refused(lambda: load_weights(small(), file), f"model.checkpoint={file}: ", sentence)


@pytest.mark.parametrize("kind, sentence", [
    (lambda w: w.to("meta"), "0.weight is without values (on the device meta)"),
    (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "0.weight is quantised"),
    (lambda w: w.to(torch.int8), "0.weight is of type int8; the network's is of type float32"),
    (lambda w: w.bool(), "0.weight is of type bool"),
    (lambda w: torch.complex(w, w), "0.weight is complex"),
    (lambda w: torch.nested.nested_tensor([w[0], w[1]]), "of another shape 0.weight nested instead of (3, 4)"),
    (lambda w: w.double() * 1e300, "values that are not finite in 0.weight"),
    (lambda w: w.half() / 0, "values that are not finite in 0.weight"),
])  # fmt: skip
def test_tensors_that_would_become_others(file, kind, sentence):
    torch.save(STATE | {"0.weight": kind(STATE["0.weight"])}, file)
    refused(lambda: load_weights(small(), file), f"model.checkpoint={file}: ", sentence)


@pytest.mark.parametrize("kind", [
    lambda w: w.to_sparse(), lambda w: w.to_sparse_csr(), lambda w: w.to(torch.float8_e4m3fn), lambda w: w.bfloat16(), lambda w: w.double(),
    nn.Parameter,
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Sparse")
def test_tensors_of_other_kinds_are_cast(file, kind):
    stored = kind(STATE["0.weight"])
    torch.save(STATE | {"0.weight": stored}, file)
    model = small(1)
    load_weights(model, file)
    dense = stored.to_dense() if stored.layout != torch.strided else stored
    assert torch.equal(model[0].weight.data, dense.float()) and model[0].weight.layout == torch.strided
