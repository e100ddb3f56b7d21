"""LAMP, SNIP, GraSP and HAP's curvature on every basis, against their definitions and invariants."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from helpers import BLOCKINGS, DECOMPOSITIONS, close, slow_differences
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.batches import Batches
from lrp.decomposition.base import decompose
from lrp.errors import InputError
from lrp.estimator.by_gradients import gradient_moments
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.layer.build import build
from lrp.matrices import LayerMatrix
from lrp.network import gradients
from lrp.network.frozen import FrozenNetwork
from lrp.partition import cut
from lrp.scorer.curvature import Curvature
from lrp.scorer.grasp import Grasp
from lrp.scorer.lamp import Lamp
from lrp.scorer.perturbation import Perturbation
from lrp.scorer.snip import Snip
from lrp.selection.global_ import GlobalSelection

BASES = ("svd", "filters", "entries")
X, LABELS = torch.randn(6, 3, 6, 5, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 3, 1, 2, 2, 0])


def problem(model, basis, blocking="none", labels=LABELS, estimator=None):
    """(evidence, components)"""
    evidence = Evidence(model, [(X, labels)]).of(estimator or FirstOrderEstimator(), (), 4096)
    blocks = cut(BLOCKINGS[blocking], evidence.matrices)
    return evidence, decompose(evidence.matrices, blocks, DECOMPOSITIONS[basis])


def component(f, i):
    U, V = f.pair(slice(i, i + 1))
    return U @ V


def moved(model, f, step):
    twin = copy.deepcopy(model)
    with torch.no_grad():
        weight = twin.get_submodule(f.block.layer).weight
        f.block.of(weight.view(len(weight), -1)).add_(step)
    return twin


def loss(model, temperature=1.0):
    return float(F.cross_entropy(model(X) / temperature, LABELS))


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("blocking", ["none", "square"])
def test_lamp_telescopes(residual, basis, blocking):
    """Whatever is removed, smallest first: the product of 1 - score is the energy that is kept, and what is lost is the error."""
    evidence, factors = problem(residual, basis, blocking)
    scores = Lamp()(factors, evidence)
    for name, matrix in evidence.matrices.items():
        own = [i for i, f in enumerate(factors) if f.block.layer == name]
        S, score = torch.cat([factors[i].S for i in own]), torch.cat([scores[i] for i in own])
        order = S.argsort(stable=True)
        assert float(score.max()) == 1 and bool((score[order].diff() >= -1e-12).all()), "in the order of S, the largest scores 1"
        total = matrix.weight.square().sum()
        assert torch.allclose(S.square().sum(), total)
        for count in (0, 1, len(S) // 2, len(S) - 1):
            gone = score.argsort(stable=True)[:count]
            kept = total - S[gone].square().sum()
            assert torch.allclose((1 - score[gone]).prod(), kept / total, rtol=1e-8)
    scaled = [dataclasses.replace(f, **{"W": 7 * f.W} if basis == "entries" else {"S": 7 * f.S}) for f in factors]
    assert all(torch.allclose(a, b) for a, b in zip(scores, Lamp()(scaled, evidence), strict=True)), "the scale of a layer does not count"


@pytest.mark.parametrize("basis", BASES)
def test_lamp_empties_no_layer_and_loses_what_it_says(residual, basis):
    evidence, factors = problem(residual, basis)
    scores = Lamp()(factors, evidence)
    keep = GlobalSelection()([f.block for f in factors], scores, 0.6)
    assert all(bool(mask.any()) for mask in keep)
    small = build(residual, factors, keep)
    for f, mask in zip(factors, keep, strict=True):
        layer = small.get_submodule(f.block.layer)
        error = layer.weight[:].flatten(1) - residual.get_submodule(f.block.layer).weight.flatten(1)
        assert float(error.square().sum()) == pytest.approx(float(f.S[~mask].square().sum()), abs=1e-9)
    silent = decompose({"a": LayerMatrix("a", torch.zeros(3, 4), 1)}, [lrp_block()], DECOMPOSITIONS[basis])
    assert all(float(score.abs().sum()) == 0 for score in Lamp()(silent, evidence))


def lrp_block():
    (block,) = cut(BLOCKINGS["none"], {"a": LayerMatrix("a", torch.zeros(3, 4), 1)})
    return block


@pytest.mark.parametrize("basis", BASES)
def test_snip_is_the_derivative_along_each_component(residual, basis):
    evidence, factors = problem(residual, basis)
    scores = Snip()(factors, evidence)
    assert float(sum(score.sum() for score in scores)) == pytest.approx(1)
    gradients = evidence.loss_gradients
    signed = [f.dot(gradients[f.block.layer]) for f in factors]
    for f, part in zip(factors, signed, strict=True):
        inner = float((evidence.matrices[f.block.layer].weight * gradients[f.block.layer]).sum())
        assert float(part.sum()) == pytest.approx(inner, rel=1e-8, abs=1e-12), "the components of a layer add up to <W, g>"
    total = sum(float(part.abs().sum()) for part in signed)
    for f, part, score in list(zip(factors, signed, scores, strict=True))[::2]:
        for i in (0, f.count // 2):
            step = 1e-5 * component(f, i)
            slope = (loss(moved(residual, f, step)) - loss(moved(residual, f, -step))) / 2e-5
            assert float(part[i]) == pytest.approx(slope, rel=1e-4, abs=1e-8)
            assert float(score[i]) == pytest.approx(abs(float(part[i])) / total)
    if basis == "svd":
        turned = [dataclasses.replace(f, U=-f.U, V=-f.V) for f in factors]
        assert all(torch.allclose(a, b) for a, b in zip(scores, Snip()(turned, evidence), strict=True))


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_the_change_of_the_gradients_flow(residual, temperature):
    """H g as a difference of gradients, and -2 <c, H g> as the change of |g|^2 without a component, to first order."""
    evidence, factors = problem(residual, "svd")
    scorer = Grasp(temperature)
    gradients = tempered(residual, temperature)
    step = 1e-4 / max(float(g.abs().max()) for g in gradients.values())
    twins = [copy.deepcopy(residual) for _ in range(2)]
    with torch.no_grad():
        for sign, twin in zip((1, -1), twins, strict=True):
            for name, g in gradients.items():
                twin.get_submodule(name).weight += sign * step * g.view_as(twin.get_submodule(name).weight)
    ahead, behind = (tempered(twin, temperature) for twin in twins)
    found = evidence.hessian_gradient_product(temperature)
    for name, product in found.items():
        assert close(product, (ahead[name] - behind[name]) / (2 * step), 1e-3)
    flows = {basis: scorer.flow(problem(residual, basis)[1], evidence) for basis in BASES}
    whole = sum(float((matrix.weight * found[name]).sum()) for name, matrix in evidence.matrices.items())
    for flow in flows.values():
        assert float(sum(part.sum() for part in flow)) == pytest.approx(whole, rel=1e-6)
    f, i = factors[1], 0
    shift = 1e-4 * component(f, i)
    squares = [sum(float(g.square().sum()) for g in tempered(moved(residual, f, sign * shift), temperature).values()) for sign in (1, -1)]
    assert (squares[0] - squares[1]) / 2e-4 == pytest.approx(2 * float(flows["svd"][1][i]), rel=1e-3)


def tempered(model, temperature):
    return Evidence(model, [(X, LABELS)]).of(FirstOrderEstimator(output_fn=lambda y: y / temperature), (), 4096).loss_gradients


@pytest.mark.parametrize("basis", BASES)
def test_grasp_keeps_the_order_of_the_paper(residual, basis):
    evidence, factors = problem(residual, basis)
    scores, flow = torch.cat(Grasp()(factors, evidence)), torch.cat(Grasp().flow(factors, evidence))
    assert float(scores.min()) == 0 and torch.equal(scores.argsort(stable=True), (-flow).argsort(descending=True, stable=True))
    assert torch.allclose(scores[1:] - scores[0], (flow[1:] - flow[0]) / flow.abs().sum(), atol=1e-12)
    other = torch.cat(Grasp(1.0)(factors, evidence))
    assert not torch.equal(other.argsort(stable=True), scores.argsort(stable=True)), "T is more than a scale"


def hadamard(count):
    """Rows that are a full basis of signs: (n, count) with n >= count a power of two."""
    H = torch.ones(1, 1, dtype=torch.float64)
    while len(H) < count:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H[:, :count]


class Quadratic(SimpleNamespace):
    """Evidence of a loss w^T H w / 2 over two layers."""

    def hessian_vector_product(self, vectors):
        flat = torch.cat([v.flatten() for v in vectors.values()])
        parts = (self.H @ flat).split([v.numel() for v in vectors.values()])
        return {name: part.view_as(v) for (name, v), part in zip(vectors.items(), parts, strict=True)}


@pytest.fixture
def quadratic():
    generator = torch.Generator().manual_seed(4)
    matrices = {
        name: LayerMatrix(name, torch.randn(shape, generator=generator).double(), 1) for name, shape in (("a", (3, 4)), ("b", (2, 3)))
    }
    root = torch.randn(18, 18, generator=generator).double()
    return Quadratic(matrices=matrices, H=root @ root.T - 2 * torch.eye(18, dtype=torch.float64))


@pytest.mark.long
@pytest.mark.parametrize("basis", BASES)
def test_probes_through_a_basis_are_exact(quadratic, basis):
    factors = decompose(quadratic.matrices, cut(BLOCKINGS["none"], quadratic.matrices), DECOMPOSITIONS[basis])
    counts = [f.count for f in factors]
    probes = hadamard(sum(counts))
    found = [sum(parts) / len(probes) for parts in zip(*(Curvature().curvatures(factors, quadratic, p.split(counts)) for p in probes))]
    place, expected = 0, []
    for f in factors:
        C = torch.stack([component(f, i) for i in range(f.count)])
        own = quadratic.H[place : place + f.block.size, place : place + f.block.size]
        flat = C.flatten(1) / C.flatten(1).norm(dim=1, keepdim=True)
        expected.append((flat @ own * flat).sum(1))
        place += f.block.size
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(found, expected, strict=True))
    if basis == "entries":
        assert float(sum(part.sum() for part in found)) == pytest.approx(float(quadratic.H.trace())), "all weights: tr(H)"
    drawn = Curvature(probes=4000)(factors, quadratic)
    exact = [(f.energy() * part / 2).clamp(min=0) for f, part in zip(factors, expected, strict=True)]
    assert close(torch.cat(drawn), torch.cat(exact), 0.15), "random probes come near"
    assert all(bool((part >= 0).all()) for part in Curvature(probes=1)(factors, quadratic)), "what is negative counts 0"


@pytest.mark.parametrize("basis", BASES)
def test_haps_importance_adds_up_to_the_trace(quadratic, basis):
    """tr(H_c) / p_c ||w_c||^2 of filters, and of whatever else."""
    factors = decompose(quadratic.matrices, cut(BLOCKINGS["none"], quadratic.matrices), DECOMPOSITIONS[basis])
    scorer, sizes = Curvature(average=True), [f.block.size for f in factors]
    probes = [[z.view(f.block.shape) for z, f in zip(p.split(sizes), factors, strict=True)] for p in hadamard(18)]
    found = [sum(parts) / len(probes) for parts in zip(*(scorer.curvatures(factors, quadratic, p) for p in probes))]
    touched = {"svd": lambda f: f.block.size, "filters": lambda f: f.block.shape[1], "entries": lambda f: 1}[basis]
    traces = quadratic.H.diagonal().split(sizes)
    for f, part, diagonal in zip(factors, found, traces, strict=True):
        if basis == "filters":
            assert torch.allclose(part * touched(f), diagonal.view(f.block.shape).sum(1))
        assert float((part * touched(f)).sum()) == pytest.approx(float(diagonal.sum()) * (f.count if basis == "svd" else 1))


def test_curvature_is_the_second_difference_of_the_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(90, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    evidence, factors = problem(model, "svd")
    counts = [f.count for f in factors]
    probes = hadamard(sum(counts))
    found = [sum(parts) / len(probes) for parts in zip(*(Curvature().curvatures(factors, evidence, p.split(counts)) for p in probes))]
    for f, part in zip(factors, found, strict=True):
        for i in range(f.count):
            step = 1e-3 * component(f, i)
            second = (loss(moved(model, f, step)) - 2 * loss(model) + loss(moved(model, f, -step))) / 1e-6
            assert float(part[i] * f.energy()[i]) == pytest.approx(second, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("basis", BASES)
def test_perturbation_is_the_gauss_newton_term_of_the_curvature(residual, basis):
    """Half of E ||dy||^2, y = 2 sqrt(softmax), is c^T G c / 2; along one layer's weights a network of ReLU is linear piece by piece, so
    this is all of c^T H c / 2, whatever the labels and wherever the loss has its minimum. Of a smooth network it is not."""
    hellinger = FirstOrderEstimator(output="hellinger")
    for labels in (LABELS, LABELS.flip(0)):
        evidence, factors = problem(residual, basis, labels=labels, estimator=hellinger)
        half = [score / 2 for score in Perturbation()(factors, evidence)]
        for i in range(0, len(factors), 2):
            for j in {0, factors[i].count - 1}:
                probe = [torch.zeros(f.count, dtype=torch.float64) for f in factors]
                probe[i][j] = 1
                exact = Curvature().curvatures(factors, evidence, probe)[i][j] * factors[i].energy()[j] / 2
                assert close(exact, half[i][j])
    smooth = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    evidence = Evidence(smooth, [(torch.randn(6, 5).double(), torch.zeros(6, dtype=torch.long))]).of(hellinger, (), 4096)
    factors = decompose(evidence.matrices, cut(BLOCKINGS["none"], evidence.matrices), DECOMPOSITIONS[basis])
    probe = [torch.zeros(f.count, dtype=torch.float64) for f in factors]
    probe[0][0] = 1
    exact = Curvature().curvatures(factors, evidence, probe)[0][0] * factors[0].energy()[0] / 2
    assert abs(float(exact - Perturbation()(factors, evidence)[0][0] / 2)) > 1e-4


def test_moments_of_weights(residual):
    """Gradients of each output of each example give what contractions over positions give; of weights what setting each to zero does."""
    _, factors = problem(residual, "svd", "square")
    fast = FirstOrderEstimator()(residual, factors, X)[0]
    slow = gradient_moments(FrozenNetwork(residual, X[:1]), factors, X, FirstOrderEstimator().read, lambda y: torch.eye(4).double())
    for a, b in zip(fast, slow, strict=True):
        assert close(b.second[:, 0], a.second.sum(1), 1e-8) and close(b.first[:, 0].square(), a.first.square().sum(1), 1e-8)
    linear = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.Flatten(), nn.Linear(24, 3)).double().eval()
    evidence, factors = problem(linear, "entries")
    found, exact = FirstOrderEstimator()(linear, factors, X)[0], ExactEstimator()(linear, factors, X)[0]
    for f, a, b in zip(factors, found, exact, strict=True):
        change = slow_differences(linear, f, X)
        assert close(a.second.sum(1), change.square().sum(2).mean(1)) and close(b.second.sum(1), change.square().sum(2).mean(1))
        assert close((a.second - a.first.square()).sum(1), change.var(1, correction=0).sum(1), 1e-7)
    assert FirstOrderEstimator().joint(linear, factors, X, [[torch.ones(f.count, dtype=torch.bool) for f in factors]]) is None


class Attention(nn.Module):
    """Tokens (B, T) to logits (B, T, 5), by torch's own attention."""

    def __init__(self):
        super().__init__()
        self.embed, self.read, self.head = nn.Embedding(5, 6), nn.Linear(6, 18), nn.Linear(6, 5)

    def forward(self, x):
        q, k, v = self.read(self.embed(x)).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v))


def test_a_label_for_each_token():
    """The loss is the mean over all tokens; attention has a second derivative, that of differences of the gradient."""
    torch.manual_seed(0)
    model, x = Attention().double(), torch.randint(0, 5, (4, 7))
    labels = torch.randint(0, 5, (4, 7))

    def evidence_of(model, labels):
        batches = Batches.of(x)
        batches.labels = labels  # a second tensor of integers might be a mask
        return Evidence(model, batches).of(FirstOrderEstimator(), (), 4096)

    evidence = evidence_of(model, labels)
    wanted = torch.autograd.grad(F.cross_entropy(model(x).flatten(0, 1), labels.flatten()), model.read.weight)[0]
    assert close(evidence.loss_gradients["read"], wanted)
    direction, step = torch.randn(18, 6).double(), 1e-5
    sides = []
    for sign in (1, -1):
        twin = copy.deepcopy(model)
        twin.read.weight.data += sign * step * direction
        sides.append(evidence_of(twin, labels).loss_gradients)
    product = evidence.hessian_vector_product({"read": direction})
    for name in ("read", "head"):
        assert close(product[name], (sides[0][name] - sides[1][name]) / (2 * step), 1e-6)
    with pytest.raises(InputError, match="its labels must be 28 integers in .0, 4., one for each place of an example"):
        _ = evidence_of(model, labels + 5).loss_gradients


@pytest.mark.parametrize("scorer", [Snip(), Grasp(), Curvature()], ids=lambda scorer: scorer.name)
def test_labels_that_are_missing_are_asked_for(residual, scorer):
    evidence = Evidence(residual, X).of(FirstOrderEstimator(), (), 4096)
    factors = decompose(evidence.matrices, cut(BLOCKINGS["none"], evidence.matrices))
    with pytest.raises(InputError, match="it holds no labels, which the loss of the network needs; give batches of \\(inputs, labels\\)"):
        scorer(factors, evidence)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Grasp(0), "^scorer.temperature=0: must be a number greater than 0"),
        (lambda: Curvature(probes=0), "^scorer.probes=0: must be"),
        (lambda: Curvature(average=1), "^scorer.average=1: "),
    ],
)
def test_options_that_cannot_be_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_second_derivatives_go_through_attention():
    """The kernel that torch takes for it by itself has none."""

    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            y = self.a(x)[:, None]
            return self.b(F.scaled_dot_product_attention(y, y, y).mean((1, 2)))

    found = gradients.hessian_traces(Attends(), ["a", "b"], torch.randn(4, 5, 4), None, lambda y: y, 2)
    assert all(bool(torch.isfinite(trace).all() and trace.any()) for trace in found.values())


@pytest.mark.parametrize("labels, sentence", [
    (torch.eye(3)[torch.arange(8) % 3], "besides inputs are no labels"), (None, "give batches of"),
])  # fmt: skip
def test_what_is_no_label(labels, sentence):
    model, x = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(8, 4)
    with pytest.raises(InputError, match=sentence):
        lrp.compress(model, x if labels is None else [(x, labels)], 0.5, method="singular_vectors", scorer="snip")


@pytest.mark.parametrize("layer", [nn.Hardsigmoid(), nn.Hardsigmoid(inplace=True), nn.Hardswish()])
def test_hardsigmoid_has_a_second_derivative(layer):
    """Of a loss that it bends, against differences of first ones."""

    def of(model, batches):
        return Evidence(model, batches).of(FirstOrderEstimator(), (), 4096)

    model = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 3)).double().eval()
    x, labels = torch.rand(6, 3).double(), torch.arange(6) % 3
    evidence, step = of(model, [(x, labels)]), 1e-6
    direction = torch.randn(4, 3).double()
    product, sides = evidence.hessian_vector_product({"0": direction}), []
    for sign in (1, -1):
        twin = copy.deepcopy(model)
        twin[0].weight.data += sign * step * direction
        sides.append(of(twin, [(x, labels)]).loss_gradients["0"])
    assert close(product["0"], (sides[0] - sides[1]) / (2 * step), 1e-6)


def test_an_operation_without_a_second_derivative_is_named():
    with pytest.raises(InputError, match="torch has no second derivative of aten::_a, which the network"), gradients._second():
        raise RuntimeError("derivative for aten::_a is not implemented")
    with pytest.raises(RuntimeError, match="another"), gradients._second():
        raise RuntimeError("another")
