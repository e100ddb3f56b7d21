"""What every selection fulfils: it never exceeds a budget, and takes no more at a higher sparsity."""

from fractions import Fraction

import pytest
import torch
from contract.adapt import every, fit, from_python, method, planned, reads_network, select
from helpers import given_network

from lrp.errors import InputError
from lrp.matrices import Block

SPARSITIES = [0, 0.05, 0.2, 0.37, 0.5, 0.77, 0.9, 0.99]


@pytest.fixture(params=["residual", pytest.param("depthwise", marks=pytest.mark.long), "tokens"])
def network(request):
    return given_network(request, 4)


@pytest.mark.slow
@every("selection")
@pytest.mark.parametrize("blocking", ["none", "square"])
@pytest.mark.parametrize("budget", ["params", "macs"])
def test_never_exceeds_a_budget(name, blocking, budget, network):
    model, x = network
    words = [f"selection={name}", f"blocking={blocking}", f"budget={budget}", "scorer=magnitude"]
    fitted, before = fit(method("singular_vectors", *words), model, x), None
    for sparsity in SPARSITIES:
        plan, held, allowed = planned(fitted, sparsity)
        keep = fitted.select(sparsity)
        rule = f"selection={name} at sparsity {sparsity}: "
        assert held <= allowed, rule + "it never exceeds its budget"
        assert all(mask.dtype == torch.bool for mask in keep), rule + "it gives masks"
        assert before is None or held <= before, rule + "a higher sparsity leaves no more than a lower one"
        assert sparsity or all(mask.all() for mask in keep), rule + "at 0 everything stays"
        before = held


@every("selection")
@pytest.mark.parametrize("step", [1, 3])
def test_keeps_the_highest_scores_of_a_block(name, step):
    selection = from_python("selection", name, round_to=step)
    if reads_network(selection):
        pytest.skip("it reads the network and no scores")
    blocks = [Block(f"layer{i}", 0, 0, p, 0, q) for i, (p, q) in enumerate([(6, 20), (10, 10), (3, 40), (1, 5), (12, 7)])]
    scores = [torch.rand(b.rank, dtype=torch.float64) for b in blocks]
    for sparsity in SPARSITIES:
        keep, again = (select(selection, blocks, scores, sparsity) for _ in range(2))
        for block, own, mask, other in zip(blocks, scores, keep, again, strict=True):
            rule, rank = f"selection={name} at sparsity {sparsity}: ", int(mask.sum())
            assert torch.equal(mask, other), rule + "a second call keeps the same"
            assert mask.all() or rank % step == 0 or rank < step, rule + "ranks are multiples of round_to, or below it"
            assert mask.all() or not mask.any() or own[mask].min() >= own[~mask].max(), rule + "of a block the highest scores stay"
            assert mask.all() or not block.is_dense(rank), rule + "a block that factors would not make smaller is stored whole"
        held = sum(block.cost(int(mask.sum())) for block, mask in zip(blocks, keep, strict=True))
        assert held <= (1 - Fraction(str(sparsity))) * sum(block.size for block in blocks)


@every("selection")
def test_bad_input_is_a_sentence(name):
    selection = from_python("selection", name)
    if reads_network(selection):
        pytest.skip("it reads the network and no scores")
    blocks = [Block("a", 0, 0, 2, 0, 2), Block("b", 0, 0, 2, 0, 2)]
    for sparsity in (1, -0.1, float("nan"), "0.5"):
        with pytest.raises(InputError, match=r"sparsity.grid=.*\[0, 1\)"):
            select(selection, blocks, [torch.ones(2)] * 2, sparsity)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="layer b"):
            select(selection, blocks, [torch.ones(2), torch.tensor([1.0, bad])], 0.5)
