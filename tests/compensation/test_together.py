"""Every decomposition, compensation and blocking together, in one call."""

import copy

import pytest
import torch
from cases import Residual
from helpers import FACTORED, NAMES, PAIRS, randomise, same_state

import lrp
from lrp.layer.compressed import Compressed


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("blocking", "budget"), PAIRS)
@pytest.mark.parametrize("compensation", NAMES["compensation"])
@pytest.mark.parametrize("decomposition", FACTORED)
def test_compress(x, decomposition, compensation, blocking, budget, tmp_path):
    model = randomise(Residual())
    before, images = copy.deepcopy(model.state_dict()), x.clone()
    options = {"decomposition": decomposition, "compensation": compensation, "blocking": blocking, "budget": budget, "scoring_images": 4}
    low, report = lrp.compress(model, x, 0.5, **options)
    assert report.attrs[f"sparsity_{budget}"] >= 0.5 and report.attrs["budget"] == budget
    assert any(isinstance(m, Compressed) for m in low.modules()) and low(x).isfinite().all()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and torch.equal(x, images)
    lrp.save(low, tmp_path / "a.safetensors")
    assert torch.allclose(lrp.load(tmp_path / "a.safetensors", model)(x), low(x), atol=1e-12)
    same_, report = lrp.compress(model, x, 0.0, **options)
    assert same_state(same_, model) and report.attrs[f"sparsity_{budget}"] == 0
