"""What every decomposition fulfils: components that add up to the block; factors in order."""

import pytest
import torch
from contract.adapt import blocks_of, decompose, every, from_python, options, survey


def factors_of(name, model, x, blocking):
    candidates = survey(model, x)
    blocks = blocks_of(from_python("blocking", blocking), candidates.matrices)
    return candidates, decompose(from_python("decomposition", name), candidates, blocks, model, x)


@every("decomposition")
@pytest.mark.parametrize("blocking", sorted(options("blocking")))
@pytest.mark.parametrize("network, shape", [("depthwise", (3, 10, 9)), ("residual", (3, 9, 8)), ("tokens", (3, 5, 4))])
def test_components_add_up_to_their_block(name, blocking, network, shape, request):
    model, x = request.getfixturevalue(network), torch.randn(5, *shape).double()
    candidates, factors = factors_of(name, model, x, blocking)
    for f in factors:
        W, rule = f.block.of(candidates.matrices[f.block.layer].weight).double(), f"decomposition={name}, layer {f.block.layer}: "
        assert f.S.shape == (f.block.rank,), rule + "S is (R,), one number for each component of the block"
        assert f.S.dtype == torch.float64 and {values.dtype for values in f.values} <= {torch.float64}, rule + "components are float64"
        assert f.S.isfinite().all() and (f.S >= 0).all(), rule + "S is finite and not negative"
        assert f.layer_norm >= 0, rule + "the norm of a layer is not negative"
        U, V = f.pair(slice(None))
        assert (U.shape, V.shape) == ((len(W), f.block.rank), (f.block.rank, W.shape[1])), rule + "U is (p, R), V (R, q)"
        assert torch.allclose(U @ V, W, atol=1e-9 * max(1.0, float(W.abs().max()))), rule + "the components add up to the block"
        if f.form == "matrix":
            assert f.block.rank == min(W.shape), rule + "R is min(p, q)"
            assert (f.S.diff() <= 1e-12 * f.S[0]).all(), rule + "S falls from the first component to the last"


@every("decomposition")
def test_repeats_bit_for_bit(name, residual):
    x, before = torch.randn(4, 3, 9, 8).double(), {key: value.clone() for key, value in residual.state_dict().items()}
    (_, one), (_, other) = (factors_of(name, residual, x, "none") for _ in range(2))
    assert all(torch.equal(a.S, b.S) and all(map(torch.equal, a.values, b.values)) for a, b in zip(one, other, strict=True)), (
        f"decomposition={name} repeats"
    )
    assert all(torch.equal(before[k], v) for k, v in residual.state_dict().items()), f"decomposition={name} leaves the network as it is"
