"""Networks inside of wrappers."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import lrp

X = torch.randn(64, 12)
AROUND = {
    "parallel": nn.DataParallel,
    "averaged": AveragedModel,
    "compiled": torch.compile,
    "both": lambda model: torch.compile(nn.DataParallel(model)),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", AROUND)
def test_the_network_inside_is_compressed(how):
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))
    expected, _ = lrp.compress(model, X, 0.5, scorer="magnitude", compensation="none")
    found, report = lrp.compress(AROUND[how](model), X, 0.5, scorer="magnitude", compensation="none")
    assert type(found) is nn.Sequential and list(report.layer) == ["0", "2"]
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), expected.state_dict().values(), strict=True))
