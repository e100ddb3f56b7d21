"""SVD-Surgeon's saliency against the minimum that it stands for, by a slow way."""

import pytest
import torch
from torch import nn

import lrp
from lrp.blocking.none import Unblocked
from lrp.decomposition.base import decompose
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.layer.build import layer_matrices
from lrp.partition import cut
from lrp.scorer.saliency import Saliency, rises


def test_the_rise_is_the_least_of_the_quadratic_model():
    g, s = torch.randn(9, 5).double(), torch.rand(5).double() + 0.1
    H = torch.stack([torch.outer(row, row) for row in g]).mean(0)
    H = H + 0.3 * H.trace() / 5 * torch.eye(5)
    expected = []
    for i in range(5):
        others = [j for j in range(5) if j != i]
        d = torch.zeros(5).double()
        d[i] = -s[i]
        d[others] = torch.linalg.solve(H[others][:, others], H[others, i] * s[i])  # where the derivative by the others is zero
        expected.append(d @ H @ d / 2)
    assert torch.allclose(rises(g, s, 0.3), torch.stack(expected), rtol=1e-10)
    assert not rises(torch.zeros(4, 3), torch.ones(3), 0.1).any()


def test_a_component_that_changes_nothing_goes_first():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    x = torch.randn(30, 6).double()
    x[:, 0] = 0
    with torch.no_grad():
        model[0].weight -= model[0].weight.mean(0)
        model[0].weight[:, 0] = 10  # the largest singular value reads what is always zero, and nothing else
    matrices = layer_matrices(model)
    factors = decompose(matrices, cut(Unblocked(), matrices))
    scores = Saliency(damping=1e-6)(factors, Evidence(model, x, estimator=FirstOrderEstimator()))
    assert [score.shape for score in scores] == [f.S.shape for f in factors]
    assert factors[0].S.argmax() == 0 == scores[0].argmin()
    small, _ = lrp.compress(model, x, 0.3, method="surgeon", scorer="saliency")
    assert torch.isfinite(small(x)).all()
    with pytest.raises(lrp.InputError, match="scorer.damping=0"):
        Saliency(damping=0)
