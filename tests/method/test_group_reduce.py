"""GroupReduce: weighted SVDs of words in blocks by frequency, against their definition, and as a method."""

import itertools

import pytest
import torch
from cases import TiedTokens
from torch import nn

import lrp
from lrp.compensation.least_squares import LeastSquares
from lrp.compensation.none import NoCompensation
from lrp.decomposition.activation import Activation
from lrp.decomposition.base import decompose
from lrp.errors import InputError
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.matrices import Block
from lrp.method.cluster_plans import ClusterLayer
from lrp.method.group_reduce import GroupReduce, rank_by_frequency


class Untied(nn.Module):
    """An embedding, an output layer of as many words, a layer between them, and one of other outputs."""

    def __init__(self, words=60, width=12):
        super().__init__()
        self.words, self.inner, self.out = nn.Embedding(words, width), nn.Linear(width, width), nn.Linear(width, words)

    def forward(self, x):
        return self.out(torch.relu(self.inner(self.words(x)))).mean(1)


def zipf(words, count, seed=0):
    """Tokens (count, 8) whose frequencies fall as 1 / rank, the words in a random order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(words, generator=generator)
    drawn = torch.multinomial(1 / torch.arange(1, words + 1).double(), count * 8, replacement=True, generator=generator)
    return order[drawn].view(count, 8)


def fitted_to(model, x, **options):
    return GroupReduce(FirstOrderEstimator(), **options).fit(Evidence(model, x))


@pytest.fixture
def untied():
    torch.manual_seed(0)
    return Untied().double().eval(), zipf(60, 200)


def frequencies(x, words):
    """As lrp counts them: each word once more."""
    return x.flatten().bincount(minlength=words).double() + 1


def lost(table, other, x):
    """The objective: sum over words of their share times the squared error."""
    counts = frequencies(x, len(table))
    return float((counts * (table - other).square().sum(1)).sum() / counts.sum())


def weighted_svd(A, q, rank):
    """As in the paper: SVD_r(Q^1/2 A), the left side times Q^-1/2."""
    root = q.sqrt()[:, None]
    U, S, Vh = torch.linalg.svd(root * A, full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank] / root


def test_the_activation_decomposition_of_an_embedding_is_the_weighted_svd(untied):
    model, x = untied
    evidence = Evidence(model, x).of(FirstOrderEstimator(), (), 65536, lookups=True)
    matrix = evidence.matrices["words"]
    counts = frequencies(x, 60)
    (factors,) = decompose({"words": matrix}, [Block("words", 0, 0, 12, 0, 60)], Activation(), evidence.statistics(["inputs"]))
    layer = ClusterLayer(model.words, matrix, 8, "params")
    (own,) = layer.factors(torch.arange(60), [60], counts)
    for rank in (1, 4, 11):
        A = weighted_svd(model.words.weight.detach(), counts, rank)
        assert torch.allclose((factors.U[:, :rank] @ factors.V[:rank]).T, A, atol=1e-8)
        assert torch.allclose((own.U[:, :rank] @ own.V[:rank]).T, A, atol=1e-8)
    fitted = fitted_to(model, x, clusters=1)
    small = fitted.plan(0.5).build()
    assert torch.allclose(small.words.weight, weighted_svd(model.words.weight.detach(), counts, len(small.words.V["0_0"])), atol=1e-8)
    head = weighted_svd(model.out.weight.detach(), counts, len(small.out.V["0_0"]))  # the output layer weighs its words alike
    assert torch.allclose(small.out.weight, head, atol=1e-8)


def test_constant_frequencies_in_one_block_are_the_svd(untied):
    model, _ = untied
    x = torch.arange(60).view(-1, 4)
    small = fitted_to(model, x, clusters=1).plan(0.5).build()
    for layer, dense in ((small.words, model.words), (small.out, model.out)):
        U, S, Vh = torch.linalg.svd(dense.weight.detach(), full_matrices=False)
        rank = len(layer.V["0_0"])
        assert torch.allclose(layer.weight, (U[:, :rank] * S[:rank]) @ Vh[:rank], atol=1e-6)


def test_words_without_a_weight_are_free(untied):
    """They change the vectors of no other word, and are projected as those of their block are."""
    model, x = untied
    matrix = Evidence(model, x).of(FirstOrderEstimator(), (), 65536, lookups=True).matrices["words"]
    layer = ClusterLayer(model.words, matrix, 8, "params")
    members, weights = torch.randperm(60), torch.rand(60).double()
    weights[members[4]] = 0
    before = layer.factors(members, [20, 40], weights)[0]
    with torch.no_grad():
        model.words.weight[members[4]] += 100
    after = layer.factors(members, [20, 40], weights)[0]
    kept = [each.U[:, :5] @ each.V[:5] for each in (before, after)]
    others = torch.arange(20) != 4
    assert torch.allclose(kept[0][:, others], kept[1][:, others], atol=1e-8)
    P = after.U[:, :5] @ after.U[:, :5].T
    assert torch.allclose(kept[1][:, 4], P @ model.words.weight[members[4]])


def test_ranks_follow_the_frequencies(untied):
    """k_p = k_c q_p / q_c, rounded down, or the whole block, of 15 x 12, from rank 7 on: the highest that the budget admits."""
    layer, mean = fitted_to(*untied).layers["words"], torch.tensor([8.0, 4.0, 2.0, 1.0]).double()

    def slow(k):
        ranks = [max(1, int(k * float(each))) for each in mean]
        return [12 if rank * 27 >= 180 else rank for rank in ranks]

    def cost(ranks):
        return sum(min(rank * 27, 180) for rank in ranks)

    for sparsity in (0.2, 0.3, 0.5, 0.7, 0.8):
        allowed = (1 - sparsity) * 720
        ranks = rank_by_frequency(layer, [15] * 4, mean, allowed)
        best = max((slow(k / 1000) for k in range(8000) if cost(slow(k / 1000)) <= allowed), key=cost)
        assert ranks == best and ranks == sorted(ranks, reverse=True)


def test_refinement_never_raises_the_objective_and_keeps_ranks(untied):
    model, x = untied
    for sparsity in (0.3, 0.7):
        before, *after = (fitted_to(model, x, clusters=4, refinement=rounds).plan(sparsity) for rounds in (0, 1, 3, 10))
        table = model.words.weight.detach()
        costs = [lost(table, plan.build().words.weight, x) for plan in (before, *after)]
        assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(costs)) and costs[-1] < costs[0]
        shapes = [[(f.block.shape, r) for f, r in zip(p.layers["words"].factors, p.layers["words"].ranks)] for p in (before, *after)]
        assert all(each == shapes[0] for each in shapes) and all(plan.params == before.params for plan in after)


def test_the_order_on_zipf_data():
    """Plain SVD, the weighted one, frequency blocks, refined blocks: each better than the one before, at the same size; so are outputs."""
    torch.manual_seed(1)
    model, x = Untied(120, 16).eval(), zipf(120, 400, 1)
    with torch.no_grad():  # words of one topic lie near a subspace of their own
        topics = torch.randn(4, 16, 5)
        for word in range(120):
            model.words.weight[word] = topics[word % 4] @ torch.randn(5) + 0.2 * torch.randn(16)
    tables, size = {}, {}
    plans = {"weighted": dict(clusters=1), "blocks": dict(clusters=4, refinement=0), "refined": dict(clusters=4, refinement=20)}
    for name, options in plans.items():
        plan = fitted_to(model, x, **options).plan(0.6)
        tables[name], size[name] = plan.build().words.weight, plan.layers["words"].params
    assert max(size.values()) <= 0.4 * 120 * 16
    U, S, Vh = torch.linalg.svd(model.words.weight.detach(), full_matrices=False)
    rank = int(0.4 * 120 * 16 / 136)
    tables = {"svd": (U[:, :rank] * S[:rank]) @ Vh[:rank], **tables}
    costs = [lost(model.words.weight, table, x) for table in tables.values()]
    assert costs == sorted(costs, reverse=True) and costs[-1] < 0.8 * costs[-2] < costs[1] < costs[0]


@pytest.mark.parametrize("compensation", [NoCompensation(), LeastSquares()])
def test_a_tied_table_stays_one_matrix(compensation, tmp_path):
    torch.manual_seed(0)
    model, x = TiedTokens().eval(), zipf(50, 100)
    fitted = fitted_to(model, x, clusters=4, compensation=compensation)
    plan = fitted.plan(0.5)
    small, _ = fitted.compress(plan)
    assert list(plan.layers) == ["embedding"] and small.output.U["0"] is small.embedding.U["0"]
    sizes = fitted.sizes(small, plan)
    assert sizes["params_total"] == plan.params + 420 + (50 if small.output.bias is not None else 0) and sizes["sparsity_params"] >= 0.5
    assert sizes["macs_layers"] == plan.macs and sizes["macs"] == plan.macs + 8 * 400
    table = small.embedding.weight
    h = torch.randn(3, 20)
    bias = 0.0 if small.output.bias is None else small.output.bias
    assert torch.allclose(small.output(h), h @ table.T + bias, atol=1e-5) and torch.allclose(small.embedding(x), table[x], atol=1e-6)
    lrp.save(small, tmp_path / "net.safetensors")
    again = lrp.load(tmp_path / "net.safetensors", TiedTokens())
    assert torch.equal(again(x), small(x)) and again.output.U["0"] is again.embedding.U["0"]
    assert torch.equal(fitted.compress(fitted.plan(0.0))[0](x), model(x))


def test_what_it_compresses_and_what_it_refuses(untied):
    model, x = untied
    fitted = fitted_to(model, x)
    assert list(fitted.layers) == ["words", "out"] and "as many words" in fitted.evidence.survey.left["inner"]
    for sparsity in (0.0, 0.3, 0.7, 0.85):
        plan = fitted.plan(sparsity)
        small, _ = fitted.compress(plan)
        assert plan.params <= (1 - sparsity) * 1440 + 1e-9 and small(x).isfinite().all()
    with pytest.raises(InputError, match="^method.clusters=61: layer words has only 60 words"):
        fitted_to(model, x, clusters=61)
    with pytest.raises(InputError, match="^budget=macs: method=group_reduce knows params alone"):
        GroupReduce(FirstOrderEstimator(), budget="macs")
    with pytest.raises(InputError, match="the network looks up no words .words: excluded"):
        fitted_to(model, x, exclude=["words"])
    with pytest.raises(InputError, match="^method=group_reduce: .*the network looks up no words"):
        fitted_to(nn.Sequential(nn.Linear(4, 3)).double().eval(), torch.randn(8, 4).double())
