"""Files that earlier versions wrote: fixtures of the code before the moves (commit 41a0307), and what their networks gave then."""

from pathlib import Path

import pytest
import torch
from cases import Depthwise, Residual
from safetensors.torch import load_file

import lrp
from lrp.layer.base import LowRank

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize(("name", "network"), [("residual", Residual), ("depthwise_fused", Depthwise)])
def test_old_files_load_and_compute_the_same(name, network, tmp_path):
    """One with compensated low-rank layers and biases that the dense network lacks, one cut in blocks with its batch norm folded in."""
    then = load_file(FIXTURES / "outputs.safetensors")
    model = lrp.load(FIXTURES / f"{name}.safetensors", model=network)
    assert any(isinstance(module, LowRank) for module in model.modules()) and not model.training
    with torch.no_grad():
        assert torch.allclose(model(then["inputs"]), then[name], atol=1e-5)
    report = getattr(model, "lrp_report", None)
    assert report is None or (len(report) and report.attrs["sparsity_params"] >= 0.4)
    lrp.save(model, tmp_path / "again.safetensors")
    again, before = load_file(tmp_path / "again.safetensors"), load_file(FIXTURES / f"{name}.safetensors")
    assert list(again) == list(before) and all(torch.equal(again[key], value) for key, value in before.items())
