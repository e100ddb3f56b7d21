"""What every scorer fulfils: one score for each component, finite, not negative, the same again."""

import pytest
import torch
from contract.adapt import every, from_python, options, plain_factors, score


@pytest.mark.slow
@every("scorer")
@pytest.mark.parametrize("blocking", sorted(options("blocking")))
@pytest.mark.parametrize(
    "network, shape", [("residual", (3, 8, 8)), pytest.param("depthwise", (3, 9, 10), marks=pytest.mark.long), ("tokens", (3, 5, 4))]
)
def test_one_score_for_each_component(name, blocking, network, shape, request):
    model, x = request.getfixturevalue(network), torch.randn(3, *shape).double()
    candidates, factors = plain_factors(model, x, blocking)
    scores = score(from_python("scorer", name), model, candidates, factors, x)
    assert len(scores) == len(factors), f"scorer={name}: one tensor of scores for each block"
    for f, found in zip(factors, scores, strict=True):
        rule = f"scorer={name}, layer {f.block.layer}: "
        assert found.shape == (f.block.rank,), rule + "one score for each component of a block"
        assert found.isfinite().all(), rule + "scores are finite"
        assert (found >= 0).all(), rule + "no score is negative"


@pytest.mark.slow
@every("scorer")
def test_repeats_bit_for_bit(name, residual):
    """Two jobs with one seed score alike, whatever drew random numbers before."""
    x, before = torch.randn(3, 3, 8, 8).double(), {key: value.clone() for key, value in residual.state_dict().items()}
    candidates, factors = plain_factors(residual, x)
    one = score(from_python("scorer", name), residual, candidates, factors, x)
    torch.manual_seed(1)
    other = score(from_python("scorer", name), residual, candidates, factors, x)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)), (
        f"scorer={name}: a second call gives the same scores, bit for bit"
    )
    assert all(torch.equal(before[k], v) for k, v in residual.state_dict().items()), f"scorer={name} leaves the network as it is"
