"""Weights that several layers hold: one factor pair for all of them, scored, fitted, stored and counted once."""

import pytest
import torch
from cases import TiedTokens
from helpers import close
from torch import nn

import lrp
from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.compensation.least_squares import LeastSquares
from lrp.decomposition.base import decompose
from lrp.decomposition.two_sided import TwoSided
from lrp.errors import InputError
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.layer.build import build
from lrp.layer_statistics.tied import nearest_product
from lrp.network.survey import find_candidates
from lrp.partition import cut


class Twice(nn.Module):
    """A Linear and another one with its weight, an embedding and another one with its table, and one that never runs."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.idle = nn.Embedding(30, 8), nn.Embedding(30, 8), nn.Embedding(30, 8)
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 3)
        self.two.weight = self.idle.weight = self.one.weight
        self.second.weight = self.first.weight

    def forward(self, x):
        h = torch.relu(self.first(self.one(x)) + self.two(29 - x))
        return self.head(self.second(h)).mean(1)


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    return TiedTokens().double().eval(), torch.randint(0, 40, (24, 7))


@pytest.fixture
def twice():
    torch.manual_seed(0)
    return Twice().double().eval(), torch.randint(0, 25, (24, 6))


def found(model, x):
    return find_candidates(model, x[:1], lookups=True, tied=True)


def test_which_layer_stands_for_a_tie(tokens, twice):
    matrices = found(*tokens).matrices
    assert matrices.keys() == {"embedding", "inner"}
    assert matrices["embedding"].shape == (20, 50) and matrices["embedding"].macs(7) == 7 * 1000  # of the output layer
    (use,) = matrices["embedding"].uses
    assert (use.name, use.transposed, use.positions) == ("output", True, 7)
    matrices = found(*twice).matrices
    assert matrices.keys() == {"one", "first", "head"}
    assert [(use.name, use.transposed, use.positions) for use in matrices["one"].uses] == [("two", False, 6), ("idle", False, 0)]
    assert matrices["first"].macs(6) == 2 * 6 * 64


@pytest.mark.parametrize("case", ["tokens", "twice"])
def test_components_are_scored_as_they_change_all_that_hold_them(case, request):
    model, x = request.getfixturevalue(case)
    x = x[:6]
    matrices = {name: matrix for name, matrix in found(model, x).matrices.items() if matrix.uses}
    factors = decompose(matrices, cut(AldsBlocking(k=2), matrices))
    exact, _ = ExactEstimator()(model, factors, x)
    first, _ = FirstOrderEstimator(projections=64)(model, factors, x)
    dense = model(x)
    for f, a, b in zip(factors, exact, first):
        weight = model.get_submodule(f.block.layer).weight
        table = weight.T if matrices[f.block.layer].lookup else weight
        before = weight.detach().clone()
        for i in range(0, len(f.S), 3):
            changes = []
            for share in (1.0, 1e-6):
                with torch.no_grad():
                    f.block.of(table).sub_(share * torch.outer(f.U[:, i], f.V[i]))
                    changes.append(((dense - model(x)) / share).square().mean(0))
                    weight.copy_(before)
            assert close(a.second[i], changes[0])
            assert torch.allclose(b.second[i], changes[1], rtol=1e-3, atol=1e-9 * float(b.second.max()))


def test_the_nearest_product_is_that_of_the_rearranged_sum():
    torch.manual_seed(0)
    Cs, Gs = [], []
    for i in range(3):
        a, b = torch.randn(5, 9).double(), torch.randn(4, 7).double() * (1 + i)
        Cs.append(a @ a.T)
        Gs.append(b @ b.T)
    C, G = nearest_product(Cs, Gs)
    rearranged = sum(torch.outer(c.flatten(), g.flatten()) for c, g in zip(Cs, Gs))
    U, S, Vh = torch.linalg.svd(rearranged)
    assert close(torch.outer(C.flatten(), G.flatten()), S[0] * torch.outer(U[:, 0], Vh[0]))
    assert float(torch.linalg.eigvalsh(C)[0]) > 0 and float(torch.linalg.eigvalsh(G)[0]) > 0
    assert close(torch.kron(*nearest_product(Cs[:1], Gs[:1])), torch.kron(Cs[0], Gs[0]))


def test_the_metric_is_the_sum_over_the_uses(tokens):
    """Of a lookup and the layer that reads its table, from the gradients themselves; both decomposition and fit are best in it."""
    model, x = tokens
    evidence = Evidence(model, x).of(FirstOrderEstimator(), (), 65536, lookups=True, tied=True)
    assert evidence.matrices["embedding"].uses
    statistics = evidence.statistics(("inputs", "gradients"))["embedding"]
    own, other = statistics.uses["embedding"], statistics.uses["output"]
    assert own.inputs.shape == (1, 50) and own.gradients.shape == (20, 20)
    assert other.inputs.shape == (1, 20, 20) and other.gradients.shape == (50,)
    held = []
    model.output.register_forward_hook(lambda _, args, z: held.append(args[0].detach().flatten(0, 1)))
    model(x)
    assert close(other.inputs[0], held[0].T @ held[0] / len(held[0]))
    terms = [(torch.diag(own.inputs[0]), own.gradients), (torch.diag(other.gradients), other.inputs[0])]
    C, G = nearest_product(*(list(side) for side in zip(*terms)))
    assert close(statistics.inputs[0], C.diagonal()) and close(statistics.gradients, G)
    factor = decompose(evidence.matrices, cut(Unblocked(), evidence.matrices), TwoSided(), evidence.statistics(("inputs", "gradients")))[0]
    W = model.embedding.weight.detach().T
    values, vectors = torch.linalg.eigh(G)
    root = vectors * values.clamp(min=1e-4 * values[-1]).sqrt() @ vectors.T
    for r in (2, 9):
        left = root @ (W - factor.U[:, :r] @ factor.V[:r]) * C.diagonal().sqrt()
        assert close(left.square().sum(), torch.linalg.svdvals(root @ W * C.diagonal().sqrt())[r:].square().sum())


def test_biases_take_the_mean_that_comes_in_the_pruned_network(tokens):
    model, x = tokens
    small, _ = lrp.compress(model, x, 0.5, compensation=LeastSquares(metric="plain"), forms="matrix", samples=24 * 7)
    means = []
    for network in (model, small):
        handle = network.output.register_forward_hook(lambda _, args, z: means.append(z.detach().mean((0, 1))))
        network(x)
        handle.remove()
    assert close(*means)


@pytest.mark.parametrize("case", ["tokens", "twice"])
def test_compressed_saved_loaded_unfolded_trained(case, request, tmp_path):
    model, x = request.getfixturevalue(case)
    small, report = lrp.compress(model, x, 0.5)
    first, others = ("embedding", ["output"]) if case == "tokens" else ("one", ["two", "idle"])
    said = dict(zip(report.layer, report.what))
    assert said[first] == "low rank" and all(said[name] == f"tied to {first}" for name in others)
    assert report.attrs["params_total"] == sum(p.numel() for p in small.parameters()) < 0.6 * report.attrs["params_total_dense"]
    assert report.params_after.sum() == report.attrs["params"] and report.macs_after.sum() == report.attrs["macs_layers"]
    dense, kept = model(x), small(x)
    assert not torch.equal(dense, kept)
    lrp.save(small, tmp_path / "a.safetensors")
    again = lrp.load(tmp_path / "a.safetensors", type(model)().double())
    plain = lrp.unfold(small)
    assert torch.equal(again(x), kept) and close(plain(x), kept)
    assert sum(p.numel() for p in again.parameters()) == report.attrs["params_total"]
    assert plain.get_submodule(first)[0].weight is plain.get_submodule(others[0])[-1 if case == "tokens" else 0].weight
    for network in (small, again):
        layers = [network.get_submodule(name) for name in (first, *others)]
        assert all(layer.V["0_0"] is layers[0].V["0_0"] and layer.U["0"] is layers[0].U["0"] for layer in layers)
        before = layers[0].weight_matrix()
        network(x).square().sum().backward()
        torch.optim.SGD(network.parameters(), 0.1).step()
        assert all(torch.equal(layer.weight_matrix(), layers[0].weight_matrix()) for layer in layers)
        assert not torch.equal(before, layers[0].weight_matrix())
        with pytest.raises(InputError, match="rank=1: other layers hold the factors"):
            layers[-1].set_rank(1)


@pytest.mark.parametrize("blocking", [Unblocked(), AldsBlocking(k=3)])
def test_the_transposed_layer_is_its_matrix(tokens, blocking):
    model, x = tokens
    matrices = found(model, x).matrices
    factors = decompose(matrices, cut(blocking, matrices))
    keep = [torch.arange(len(f.S)) < (2 + f.block.index if f.block.index != 1 else f.block.rank) for f in factors]
    layer = build(model, factors, keep).output
    h = torch.randn(4, 3, 20).double()
    assert close(layer(h), h @ layer.weight_matrix()) and layer.weight.shape == (50, 20)
    assert close(layer.weight_matrix().T, layer.weight.clone())


def test_where_it_is_left_alone(tokens):
    model, x = tokens
    for options in ({"method": "pca"}, {"method": "svd_uniform", "budget": "macs"}):
        small, report = lrp.compress(model, x[:4], 0.4, **options)
        said = dict(zip(report.layer, report.what))
        assert said["output"] == "left alone: tied weight", options
        assert said["embedding"].startswith("left alone") and small.output.weight is small.embedding.weight
    left = find_candidates(model, x[:1], ["output"], lookups=True, tied=True).left
    assert left == {"output": "excluded", "embedding": "tied weight"}


def test_networks_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    batch = {"input_ids": torch.randint(2, 60, (8, 6)), "decoder_input_ids": torch.randint(2, 60, (8, 5))}
    small, report = lrp.compress(model, batch, 0.8)
    assert report.attrs["params_total"] < 0.3 * report.attrs["params_total_dense"]
    lrp.save(small, tmp_path / "folder")
    again = lrp.load(tmp_path / "folder")
    for network in (small, again):
        network.tie_weights()  # which transformers calls now and then
        assert torch.equal(network(**batch).logits, small(**batch).logits)
        assert network.lm_head.V["0_0"] is network.encoder.embed_tokens.V["0_0"] is network.shared.V["0_0"]
    given = small.generate(batch["input_ids"], max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert given.shape == (8, 5)
    small.save_pretrained(tmp_path / "theirs")  # what their Trainer writes


class Biased(TiedTokens):
    """Its output layer has a bias, which it holds itself as well, as BERT's does."""

    def __init__(self):
        super().__init__()
        self.output.bias = nn.Parameter(torch.randn(50))
        self.shift = self.output.bias


def test_a_bias_that_is_tied_stays_so(tokens, tmp_path):
    model = Biased().double().eval()
    small, report = lrp.compress(model, tokens[1], 0.6)
    lrp.save(small, tmp_path / "a.safetensors")
    for network in (small, lrp.load(tmp_path / "a.safetensors", Biased().double())):
        assert network.output.form == "transposed" and network.shift is network.output.bias
        assert not torch.equal(network.shift, model.shift)
        assert sum(p.numel() for p in network.parameters()) == report.attrs["params_total"]
