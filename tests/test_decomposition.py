"""Decompositions in the metric of inputs and output gradients, and the statistics that they need, against slow loops."""

import copy
import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import randomise
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from lrp.config.paths import CONF
from lrp.decomposition.activation import Activation
from lrp.decomposition.base import decompose
from lrp.decomposition.metric import GRADIENT_FLOOR, metric_factors, roots
from lrp.decomposition.svd import Svd
from lrp.decomposition.two_sided import TwoSided
from lrp.errors import InputError
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.layer_statistics import gather as gather_module
from lrp.layer_statistics import sums as sums_module
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.gather import gather
from lrp.layer_statistics.positions import Positions, columns, inside
from lrp.layer_statistics.sums import Sums, gram
from lrp.matrices import Block, cut
from lrp.model.vgg16 import VGG16
from lrp.network.survey import find_candidates


def parts(group):
    files = {file.stem: yaml.safe_load(file.read_text()) for file in sorted(CONF.glob(f"{group}/*.yaml"))}
    return {name: instantiate(OmegaConf.create({"seed": 0, group: text})[group]) for name, text in files.items()}


DECOMPOSITIONS, BLOCKINGS, SCORERS = parts("decomposition"), parts("blocking"), parts("scorer")
SHAPES = {"narrow_vgg": (3, 32, 32), "residual": (3, 9, 8), "depthwise": (3, 10, 9), "tokens": (3, 5, 4), "chain": (4, 11)}


class Chain(nn.Module):
    """1d: grouped and strided, circular and dilated, "same" with an even kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2, bias=False)
        self.b = nn.Conv1d(6, 5, 3, padding=2, dilation=2, padding_mode="circular")
        self.c = nn.Conv1d(5, 8, 4, padding="same")
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.c(torch.tanh(self.b(torch.relu(self.a(x))))).mean(2))


@pytest.fixture
def narrow_vgg():
    return randomise(VGG16(width=1 / 32))


@pytest.fixture
def chain():
    return Chain().double().eval()


@pytest.fixture(params=SHAPES)
def network(request):
    """(a network in float64, 5 inputs)"""
    return request.getfixturevalue(request.param), torch.randn(5, *SHAPES[request.param]).double()


def flat(y):
    return y.flatten(1)


def measured(model, x, *needs, samples=65536):
    candidates = find_candidates(model, x[:1])
    return candidates, gather(model, candidates, x, needs, flat, samples)


def factors_of(candidates, decomposition, blocking, found):
    return decompose(candidates.matrices, cut(blocking, candidates.matrices), decomposition, found)


def close(a, b, tolerance=1e-9):
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


# Factors


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
def test_gives_every_block_back(network, decomposition):
    """With few images, constant and dead channels: moments that are singular, or zero."""
    model, x = network
    x[:, -1] = 0
    if isinstance(model, Chain):
        with torch.no_grad():
            model.b.weight[:3], model.b.bias[:3] = 0, 0  # channels without a value, and without a gradient
            model.c.weight[:, 3:] = 0
    for images in (x[:1], x):
        candidates, found = measured(model, images, "inputs", "gradients", samples=2 * len(images))
        singular = [s for s in found.values() if int(torch.linalg.matrix_rank(s.inputs[0])) < s.inputs.shape[1]]
        assert len(singular) > len(found) / 2
        for blocking in BLOCKINGS.values():
            factors = factors_of(candidates, DECOMPOSITIONS[decomposition], blocking, found)
            for f in factors:
                W = f.block.of(candidates.matrices[f.block.layer].weight)
                R = min(W.shape)
                assert f.U.shape == (len(W), R) and f.V.shape == (R, W.shape[1]) and f.S.shape == (R,)
                assert f.U.dtype == f.S.dtype == f.V.dtype == torch.float64 and f.decomposition == decomposition
                assert torch.allclose(f.U @ f.V, W, atol=1e-9 * max(1.0, float(W.abs().max())))
                assert f.S.isfinite().all() and (f.S >= 0).all() and (f.S.diff() <= 1e-12 * f.S[0]).all()
                if decomposition == "svd":
                    assert (f.layer_norm >= f.S - 1e-12).all()


@pytest.mark.parametrize("decomposition", DECOMPOSITIONS)
def test_the_norm_of_a_layer_is_the_largest_of_its_groups(depthwise, decomposition):
    """Whatever the blocking. In a metric of the inputs that is no bound of the blocks' own: what they give may cancel."""
    x = torch.randn(3, 3, 10, 9).double()
    candidates, found = measured(depthwise, x, "inputs", "gradients")
    wholes = factors_of(candidates, DECOMPOSITIONS[decomposition], BLOCKINGS["none"], found)
    for blocking in BLOCKINGS.values():
        for f in factors_of(candidates, DECOMPOSITIONS[decomposition], blocking, found):
            largest = max(float(whole.S[0]) for whole in wholes if whole.block.layer == f.block.layer)
            assert f.layer_norm == pytest.approx(largest, rel=1e-9)


def only(decomposition, W, C=None, G=None):
    block = Block("", 0, 0, len(W), 0, W.shape[1])
    return decomposition(W, block, LayerStatistics(len(W), None if C is None else C[None], G))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (1, 4), (4, 1)])
def test_identities_leave_the_plain_ones(shape):
    W = torch.randn(shape).double()
    X = torch.randn(shape[1], 30).double()
    eyes = [torch.eye(n, dtype=torch.float64) for n in shape]
    products = lambda found: [found[0][:, :r] @ found[2][:r] for r in range(len(found[1]) + 1)]  # noqa: E731
    plain, active = only(Svd(), W), only(Activation(), W, X @ X.T)
    for other, same in ((plain, only(Activation(), W, eyes[1])), (plain, only(TwoSided(), W, eyes[1], eyes[0])),
                        (plain, only(TwoSided(), W, 2 * eyes[1], 2 * eyes[0])), (active, only(TwoSided(), W, X @ X.T, eyes[0])),
                        (active, only(TwoSided(), W, X @ X.T, torch.zeros(2 * [shape[0]]).double()))):  # fmt: skip
        assert close(same[1] / same[1][0], other[1] / other[1][0])
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(products(same), products(other)))
    assert close(only(TwoSided(), W, 2 * eyes[1], 2 * eyes[0])[1], 2 * plain[1])


def part_of(found, block):
    """The block's own part of C."""
    columns = slice(block.col_start, block.col_stop)
    return found.inputs[block.row_start // (found.rows // len(found.inputs)), columns, columns]


def error(D, C, G=None):
    """tr(G D C D^T)"""
    root = D if G is None else G @ D
    return float((root @ C * D).sum())


@pytest.mark.parametrize("blocking", BLOCKINGS)
def test_no_rank_has_less_error_on_the_calibration_data(network, blocking):
    """Against the SVD, and against what the theory says the error is."""
    model, x = network
    candidates, found = measured(model, x, "inputs", "gradients")
    plain = factors_of(candidates, Svd(), BLOCKINGS[blocking], None)
    one = factors_of(candidates, Activation(), BLOCKINGS[blocking], found)
    two = factors_of(candidates, TwoSided(), BLOCKINGS[blocking], found)
    better = 0
    for p, a, t in zip(plain, one, two):
        s, W = found[p.block.layer], p.block.of(candidates.matrices[p.block.layer].weight)
        C = part_of(s, p.block)
        values, vectors = torch.linalg.eigh(s.gradients_of(p.block))
        largest = float(values[-1])
        floored = values.clamp(min=GRADIENT_FLOOR * largest) if largest > 0 else torch.ones_like(values)
        G = (vectors * floored) @ vectors.T
        whole, gradients = error(W, C), error(W, C, G)
        for r in range(0, len(p.S), 1 + len(p.S) // 5):
            left = [W - f.U[:, :r] @ f.V[:r] for f in (p, a, t)]
            own, best = error(left[1], C), error(left[2], C, G)
            assert own == pytest.approx(float(a.S[r:].square().sum()), rel=1e-8, abs=1e-8 * whole)
            assert best == pytest.approx(float(t.S[r:].square().sum()), rel=1e-8, abs=1e-8 * gradients)
            assert own <= min(error(left[0], C), error(left[2], C)) + 1e-9 * whole
            assert best <= min(error(left[0], C, G), error(left[1], C, G)) + 1e-9 * gradients
            better += own < 0.999 * error(left[0], C)
    assert better > 3


@pytest.mark.parametrize("decomposition", [Activation(), TwoSided()], ids=lambda d: d.name)
def test_outputs_do_in_place_of_inputs(network, decomposition):
    """Blocks of whole rows need the second moment of the outputs alone, without the bias: the same components."""
    model, x = network
    candidates, found = measured(model, x, "inputs", "products", "gradients")
    blocks = cut(BLOCKINGS["none"], candidates.matrices)
    short = {name: dataclasses.replace(s, inputs=None) for name, s in found.items()}
    long = {name: dataclasses.replace(s, zz=None) for name, s in found.items()}
    for a, b in zip(*(decompose(candidates.matrices, blocks, decomposition, s) for s in (short, long))):
        assert close(a.S, b.S, 1e-6) and a.layer_norm == pytest.approx(b.layer_norm)
        for r in range(1, len(a.S)):
            if a.S[r] < 0.9 * a.S[r - 1]:  # or the two may mix
                assert torch.allclose(a.U[:, :r] @ a.V[:r], b.U[:, :r] @ b.V[:r], atol=1e-4)


def test_best_of_all_ranks_by_descent():
    """No small step from the rank r that two_sided finds lowers its error: it is at a minimum, for each r."""
    W, X, g = torch.randn(5, 7).double(), torch.randn(7, 20).double(), torch.randn(5, 20).double()
    C, G = X @ X.T, g @ g.T
    U, S, V = only(TwoSided(), W, C, G)
    for r in range(1, 5):
        least = error(W - U[:, :r] @ V[:r], C, G)
        for size in (1e-3, 1e-1):
            for _ in range(10):
                moved = (U[:, :r] + size * torch.randn(5, r).double()) @ (V[:r] + size * torch.randn(r, 7).double())
                assert error(W - moved, C, G) >= least * (1 - 1e-9)


def test_components_without_energy_come_last_by_their_weight():
    W = torch.randn(6, 8).double()
    X = torch.randn(8, 2).double()  # two samples
    U, S, V = metric_factors(W, W @ X @ X.T @ W.T, None)
    assert (S[:2] > 0).all() and (S[2:] == 0).all()
    assert torch.allclose(U.T @ U, torch.eye(6).double(), atol=1e-12)
    assert torch.allclose(U[:, :2] @ (V[:2] @ X), W @ X, atol=1e-10)  # the first two give all the outputs
    assert (V[2:].norm(dim=1).diff() <= 1e-12).all()
    U, S, V = metric_factors(W, torch.zeros(6, 6).double(), torch.zeros(6, 6).double())
    assert not S.any() and close(V.norm(dim=1), torch.linalg.svdvals(W)) and torch.allclose(U @ V, W)
    U, S, V = metric_factors(torch.zeros(6, 8).double(), torch.zeros(6, 6).double(), None)
    assert not S.any() and not (U @ V).any() and U.isfinite().all()


def test_roots_raise_what_is_below_the_floor():
    vectors = torch.linalg.qr(torch.randn(4, 4).double()).Q
    root, inverse = roots(vectors @ torch.diag(torch.tensor([100, 1, 1e-9, 0]).double()) @ vectors.T)
    expected = vectors @ torch.diag(torch.tensor([100, 1, 0.01, 0.01]).double()) @ vectors.T
    assert torch.allclose(root @ root, expected, atol=1e-10) and torch.allclose(root @ inverse, torch.eye(4).double(), atol=1e-10)


def test_what_is_not_finite_is_named(residual):
    candidates, found = measured(residual, torch.randn(3, 3, 9, 8).double(), "inputs")
    candidates.matrices["conv1"].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="^layer conv1: its weight holds values that are not finite, so it cannot be decomposed$"):
        factors_of(candidates, Activation(), BLOCKINGS["none"], found)


# Statistics


def unfold(module, x):
    """What a layer multiplies, (B, positions, groups, N), by loops."""
    if isinstance(module, nn.Linear):
        return x.reshape(len(x), -1, 1, x.shape[-1])
    pads = module._reversed_padding_repeated_twice
    x = F.pad(x, pads, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
    sizes = [(x.shape[2 + d] - module.dilation[d] * (k - 1) - 1) // module.stride[d] + 1 for d, k in enumerate(module.kernel_size)]
    rows = []
    for at in itertools.product(*map(range, sizes)):
        taps = []
        for tap in itertools.product(*map(range, module.kernel_size)):
            place = [p * s + t * d for p, s, t, d in zip(at, module.stride, tap, module.dilation)]
            taps.append(x[(slice(None), slice(None), *place)])
        rows.append(torch.stack(taps, 2).reshape(len(x), module.groups, -1))
    return torch.stack(rows, 1)


@torch.no_grad()
def calls(model, names, x):
    """Of each layer what it reads and gives."""
    seen = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _, args, output, name=name: seen.update({name: (args[0].clone(), output.clone())})
        )
        for name in names
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("samples", [1, 14, 10**6])
def test_inputs_and_outputs_are_what_the_layers_read_and_give(network, samples, monkeypatch):
    model, x = network
    monkeypatch.setattr(gather_module, "CHUNK", 2)
    monkeypatch.setattr(sums_module, "ROWS", 13)
    monkeypatch.setattr(sums_module, "PANEL", 4)
    candidates, found = measured(model, x, "inputs", "outputs", samples=samples)
    whole = measured(model, x, "products", samples=samples)[1]
    seen = calls(model, candidates.matrices, x)
    assert list(found) == list(candidates.matrices)
    for name, s in found.items():
        module, each = model.get_submodule(name), torch.arange(len(x))[:, None]
        rows = unfold(module, seen[name][0])
        linear = isinstance(module, nn.Linear)
        z = seen[name][1].reshape(len(x), -1, len(module.weight)) if linear else seen[name][1].flatten(2).mT
        assert s.where.shape == (len(x), min({1: 1, 14: 3}.get(samples, samples), rows.shape[1]))  # of 5 images
        assert all(len(set(at.tolist())) == len(at) for at in s.where)
        taken = rows[each, s.where].flatten(0, 1)
        assert close(s.inputs, torch.einsum("sgn,sgm->gnm", taken, taken) / len(taken))
        assert close(s.outputs, z[each, s.where]) and s.rows == len(module.weight) and s.gradients is None
        weight = module.weight.detach().flatten(1).unflatten(0, (rows.shape[2], -1))  # what was unfolded is what is multiplied
        product = torch.einsum("bpgn,gmn->bpgm", rows, weight).flatten(2)
        assert torch.allclose(product if module.bias is None else product + module.bias, z, atol=1e-9)
        matrix = candidates.matrices[name]
        for blocking in BLOCKINGS.values():  # the second moment of what a block gives
            for block in cut(blocking, {name: matrix}):
                group = block.row_start // (len(module.weight) // rows.shape[2])
                part = taken[:, group, block.col_start : block.col_stop] @ block.of(matrix.weight).T
                assert close(s.products(matrix.weight, block), part.T @ part / len(part))
                if block.shape[1] == matrix.shape[1]:
                    assert close(whole[name].products(matrix.weight, block), part.T @ part / len(part), 1e-8)


SIGNS = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])  # their average product is the identity


def test_gradients_are_those_of_every_output(network, monkeypatch):
    """Averaged over signs that are orthogonal, the estimate is the sum over all outputs, one by one and image by image."""
    model, x = network
    x = x[:3]
    monkeypatch.setattr(gather_module, "CHUNK", 2)
    read = lambda y: y[:, :4]  # noqa: E731
    candidates = find_candidates(model, x[:1])
    total = {}
    for signs in SIGNS:
        monkeypatch.setattr(torch, "randint", lambda low, high, shape, generator: ((signs[: shape[1]] + 1) / 2).expand(shape))
        found = gather(model, candidates, x, ["gradients"], read)
        for name, s in found.items():
            assert s.inputs is None and s.outputs is None
            total[name] = total.get(name, 0) + s.gradients / len(SIGNS)
    for name in list(total)[:: 4 if len(total) > 10 else 1]:
        module = model.get_submodule(name)
        G = torch.zeros(2 * [len(module.weight)]).double()
        for image in x:
            held = []

            def keep(_, args, output):
                held.append(output.detach().requires_grad_())
                return held[0].clone()

            handle = module.register_forward_hook(keep)
            y = read(model(image[None]))[0]
            handle.remove()
            for k in range(len(y)):
                g = torch.autograd.grad(y[k], held[0], retain_graph=True)[0][0]
                g = g.reshape(-1, g.shape[-1]).T if isinstance(module, nn.Linear) else g.flatten(1)
                G += g @ g.T
        assert close(total[name], G / len(x))


def test_one_output_needs_no_signs(residual):
    x = torch.randn(4, 3, 9, 8).double()
    candidates = find_candidates(residual, x[:1])
    G = gather(residual, candidates, x, ["gradients"], lambda y: y[:, 1:2])["fc"].gradients
    assert torch.equal(G, torch.diag(torch.tensor([0.0, 1, 0, 0]).double()))
    none = gather(residual, candidates, x, ["gradients"], lambda y: y[:, 1:2] * 0 + x.sum((1, 2, 3))[:, None])
    assert not any(s.gradients.any() for s in none.values())
    assert gather(residual, candidates, x, [], flat) == {}


def test_positions_are_those_of_every_network(residual):
    """Another network of the same shape looks where this one does; each layer and each image somewhere else."""
    x = torch.randn(6, 3, 16, 16).double()
    other = copy.deepcopy(residual)
    for p in other.parameters():
        p.data.mul_(0.5)
    mine, theirs = (measured(model, x, "outputs", samples=30)[1] for model in (residual, other))
    assert all(torch.equal(mine[name].where, theirs[name].where) for name in mine)
    at = Positions({"a": 40, "b": 40, "few": 4}, 200, 1000)
    assert not torch.equal(at.of("a"), at.of("b")) and len({tuple(row.tolist()) for row in at.of("a")}) > 150
    assert at.of("few").tolist() == 200 * [[0, 1, 2, 3]]
    count = torch.bincount(at.of("a").flatten(), minlength=40)
    assert len(count) == 40 and int(count.min()) > 8 and int(count.max()) < 50  # 25 each, on average


def test_gradients_are_of_the_first_images(residual, monkeypatch):
    monkeypatch.setattr(gather_module, "CHUNK", 2)
    monkeypatch.setattr(gather_module, "GRADIENT_IMAGES", 4)
    x = torch.randn(7, 3, 9, 8).double()
    few, all_ = (measured(residual, images, "inputs", "gradients", "outputs")[1] for images in (x[:4], x))
    assert all(torch.equal(few[name].gradients, all_[name].gradients) and len(all_[name].outputs) == 7 for name in few)
    assert not torch.equal(few["fc"].inputs, all_["fc"].inputs)
    assert all(not s.outputs.requires_grad for s in all_.values())


@pytest.mark.parametrize("grad", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_network_stays_as_it_is(residual, grad):
    residual.train()
    residual.bn1.eval()
    residual.fc.weight.requires_grad_(False)
    residual.conv1.weight.grad = torch.ones_like(residual.conv1.weight)
    x = torch.randn(4, 3, 9, 8).double()
    before, modes, images = copy.deepcopy(residual), [m.training for m in residual.modules()], x.clone()
    with grad():
        _, found = measured(residual, x, "inputs", "gradients", "outputs")
    assert all(s.gradients.any() for s in found.values())
    assert [m.training for m in residual.modules()] == modes and torch.equal(x, images)
    assert all(torch.equal(before.state_dict()[k], v) for k, v in residual.state_dict().items())
    for (name, p), q in zip(residual.named_parameters(), before.parameters()):
        assert p.requires_grad == q.requires_grad and (p.grad is None) == (name != "conv1.weight")
    assert not any(m._forward_hooks for m in residual.modules()) and residual.relu.inplace
    assert not any(t.requires_grad for s in found.values() for t in (s.inputs, s.gradients, s.outputs))
    again = measured(residual.eval(), x, "inputs", "gradients")[1]
    assert all(torch.equal(found[k].gradients, again[k].gradients) and torch.equal(found[k].inputs, again[k].inputs) for k in found)


def test_what_cannot_be_measured_is_named(residual):
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x):
            return self.fc(x.flatten(0, 1)).view(len(x), -1)

    with pytest.raises(InputError, match="^layer fc: the first dimension of its values does not run over the images"):
        measured(Mixed(), torch.randn(4, 5, 3), "inputs")
    x = torch.randn(3, 3, 9, 8).double()
    x[1, 0, 0, 0] = torch.inf
    with pytest.raises(InputError, match="^layer stem: its inputs or gradients on the calibration images are not finite"):
        measured(residual, x, "inputs")


@pytest.mark.parametrize("seen", [0.4, 1.0])
def test_sums_against_loops(monkeypatch, seen):
    monkeypatch.setattr(sums_module, "ROWS", 5)
    monkeypatch.setattr(sums_module, "PANEL", 2)
    read = torch.rand(3, 9, generator=torch.Generator().manual_seed(1)) < seen  # the columns that read anything, at 3 positions
    where = torch.arange(17) % 3
    x, z = torch.randn(17, 2, 9).double() * read[where, None], torch.randn(17, 6).double()
    assert torch.allclose(gram(x.transpose(0, 1)), torch.einsum("sgn,sgm->gnm", x, x))
    for inside in (None, read):
        sums = Sums(inside)
        for at in torch.arange(17).split(4):
            sums.add(x[at], z[at], where[at])
        sums.flush().flush()
        assert sums.count == 17
        assert torch.allclose(sums.xx, torch.einsum("sgn,sgm->gnm", x, x)) and torch.allclose(sums.x, x.sum(0))
        assert torch.allclose(sums.z, z.sum(0))
        assert torch.allclose(sums.zx, torch.einsum("sgm,sgn->gmn", z.view(17, 2, 3), x).flatten(0, 1))
    assert (Sums(read)._kind is None) == (seen == 1.0)


@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"padding": 1, "padding_mode": "circular"}, {"padding": (0, 2), "stride": 2, "groups": 2}]
)
def test_what_a_position_reads(options):
    layer, x = nn.Conv2d(4, 4, 3, **options).double(), torch.randn(1, 4, 3, 3).double() + 9
    positions = layer(x)[0, 0].numel()
    read = inside(layer, x, positions)
    assert torch.equal(read, columns(layer, x, torch.arange(positions)[None])[:, 0] != 0)
    assert bool(read.all()) == (options.get("padding_mode") == "circular")


# Scores


@torch.no_grad()
def deleted(model, factor, x):
    """y - y_b of every component (R, B, K), really without it."""
    y, layer, found = model(x), model.get_submodule(factor.block.layer), []
    original = layer.weight.clone()
    for i in range(factor.block.rank):
        factor.block.of(layer.weight.flatten(1)).sub_(torch.outer(factor.U[:, i], factor.V[i]))
        found.append(y - model(x))
        layer.weight.copy_(original)
    return torch.stack(found)


@pytest.mark.parametrize("decomposition", [name for name in DECOMPOSITIONS if name != "svd"])
@pytest.mark.parametrize("network", ["residual", "depthwise", "tokens", "chain"], indirect=True)
def test_scorers_score_these_components(network, decomposition):
    model, x = network
    candidates, found = measured(model, x, "inputs", "gradients")
    factors = factors_of(candidates, DECOMPOSITIONS[decomposition], BLOCKINGS["square"], found)
    exact, _ = ExactEstimator()(model, factors, x)
    slow = [deleted(model, f, x) for f in factors]
    for name, scorer in SCORERS.items():
        scores = scorer(factors, SimpleNamespace(matrices=candidates.matrices, moments=lambda _: exact))
        assert [len(score) for score in scores] == [f.block.rank for f in factors]
        assert all(score.isfinite().all() and (score >= 0).all() for score in scores)
        for f, score, change in zip(factors, scores, slow):
            expected = {
                "perturbation": change.square().sum(2).mean(1),
                "variance": change.var(1, correction=0).sum(1),
                "magnitude": f.S,
                "spectrum": f.S.square(),
                "relative_error": f.S / f.layer_norm,
                "energy": f.S.square() / sum(g.S.square().sum() for g in factors if g.block.layer == f.block.layer),
            }
            if name in expected:
                assert torch.allclose(score, expected[name], rtol=1e-8, atol=1e-18)
    D = FirstOrderEstimator().contributions(model, factors, x)
    for f, part in zip(factors[::2], D[::2]):
        little = deleted(model, dataclasses.replace(f, V=1e-6 * f.V), x) / 1e-6
        assert close(part.permute(2, 0, 1), little, 1e-3)


def test_two_sided_is_the_change_of_a_linear_network():
    """With one position, independent inputs and a linear rest of one output S^2 is the perturbation itself, to first order."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 7, bias=False), nn.Linear(7, 1)).double()
    x = torch.randn(40, 12).double()
    candidates, found = measured(model, x, "inputs", "gradients")
    f = factors_of(candidates, TwoSided(), BLOCKINGS["none"], found)[0]
    first, weight = model[1].weight.detach(), model[2].weight[0].detach()
    floored = roots(torch.outer(weight, weight))[0]
    X = x.T @ x / len(x)
    assert float(f.S[0]) == pytest.approx(float(torch.linalg.eigvalsh(floored @ first @ X @ first.T @ floored)[-1].sqrt()))
    perturbation = SCORERS["perturbation"]([f], SimpleNamespace(moments=lambda factors: ExactEstimator()(model, factors, x)[0]))[0]
    assert float(perturbation[0]) == pytest.approx(float(f.S[0].square()), rel=1e-3)
    assert float(perturbation[1:].sum()) < 1e-2 * float(perturbation[0])  # directions that the output does not see
