"""Components of every kind against the matrices that they stand for, and layers that keep some of them."""

import copy

import pytest
import torch
from helpers import BLOCKINGS, DECOMPOSITIONS, close, same_state
from torch import nn

import lrp
from lrp.blocking.square import SquareBlocking
from lrp.compensation.least_squares import LeastSquares
from lrp.decomposition.base import decompose
from lrp.errors import InputError
from lrp.layer.build import build, kind_of, layer_matrices
from lrp.matrices import LayerMatrix
from lrp.partition import cut

BASES = ("svd", "filters", "entries")
X, LABELS = torch.randn(6, 3, 9, 8, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([0, 3, 1, 2, 2, 0])


def components(matrices, basis, blocking="none"):
    return decompose(matrices, cut(BLOCKINGS[blocking], matrices), DECOMPOSITIONS[basis])


def each(f):
    """c_i (R, p, q)."""
    return torch.stack([U @ V for U, V in (f.pair(slice(i, i + 1)) for i in range(f.count))])


@pytest.mark.parametrize("basis", BASES)
def test_what_scorers_ask_of_components(basis):
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).double()
    weight[2] = 0  # a filter and weights without a direction
    matrices = {"a": LayerMatrix("a", weight, 4)}
    for blocking in (BLOCKINGS["none"], SquareBlocking()):
        factors = decompose(matrices, cut(blocking, matrices), DECOMPOSITIONS[basis])
        assert sum(f.block.size for f in factors) == 40
        for f in factors:
            C, G = each(f), torch.randn(f.block.shape, generator=torch.Generator().manual_seed(1)).double()
            norms = C.flatten(1).norm(dim=1)
            live = norms > 1e-12
            assert torch.allclose(C.sum(0), f.block.of(weight))
            assert torch.allclose(f.dot(G), (C * G).sum((1, 2)), atol=1e-12)
            assert torch.allclose(f.energy(), norms**2) and torch.allclose(f.S, norms)
            z = torch.randn(f.count, generator=torch.Generator().manual_seed(2)).double() * live
            assert torch.allclose(f.combine(z), (C * (z / norms.clamp(min=1e-300))[:, None, None]).sum(0), atol=1e-9)
            assert bool((f.S[f.order].diff() <= 0).all())
            touched = torch.ones_like(C) if basis == "svd" else (each_touched(f) > 0).double()
            assert torch.allclose(f.mean(G), (touched * G).sum((1, 2)) / touched.sum((1, 2)))
            assert f.block.unit == {"svd": sum(f.block.shape), "filters": f.block.shape[1], "entries": 1}[basis]
            assert f.block.cost(1) == min(f.block.unit, f.block.size) and f.layer_norm >= f.S.max() - 1e-9


def each_touched(f):
    """Ones where a component may be other than zero (R, p, q)."""
    keep = torch.eye(f.count, dtype=torch.bool)
    return torch.stack([f.stays(mask).double() for mask in keep])


@pytest.mark.parametrize("basis", ["filters", "entries"])
def test_what_is_removed_is_zero_and_stays_zero(basis, residual, tmp_path):
    """And the network is saved, loaded, unfolded and trained as it is."""
    small, report = lrp.compress(residual, X, 0.7, method="singular_vectors", decomposition=basis, scorer="magnitude")
    a, masked = report.attrs, list(report.layer[report.what == "masked"])
    assert len(masked) >= 4 and set(report.what) <= {"masked", "left dense: would not be smaller"} and "as slow as before" in str(report)
    matrices = {name: kind_of(small.get_submodule(name)).as_matrix(None, small.get_submodule(name).weight[:]) for name in report.layer}
    assert a["params"] == sum(int((matrix != 0).sum()) for matrix in matrices.values()) <= 0.3 * a["params_dense"]
    assert a["params_total"] == a["params_total_dense"] and a["macs"] == a["macs_dense"]
    zeroed = [(name, matrices[name] == 0) for name in masked]
    for name, zero in zeroed:
        original = residual.get_submodule(name).weight.flatten(1)
        assert torch.equal(matrices[name], torch.where(zero, 0, original))
    lrp.save(small, tmp_path / "small.safetensors")
    loaded = lrp.load(tmp_path / "small.safetensors", model=residual)
    assert same_state(loaded, small) and torch.equal(loaded(X), small(X))
    plain, fused = lrp.unfold(small), lrp.fuse(small)
    assert type(plain.stem) is nn.Conv2d and close(plain(X), small(X)) and close(fused(X), small(X))
    optimizer = torch.optim.SGD(small.train().parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(small(X), LABELS).backward()
        optimizer.step()
    for name, zero in zeroed:
        layer = small.get_submodule(name)
        assert bool((layer.weight_matrix()[zero] == 0).all()) and not close(
            layer.weight_matrix(), loaded.get_submodule(name).weight_matrix()
        )


LAYERS = {
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1, groups=2, padding_mode="circular"), torch.randn(2, 4, 7)),
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding="valid", dilation=2, bias=False), torch.randn(2, 4, 9, 8)),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1), torch.randn(2, 4, 7)),
    "transposed2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2), torch.randn(2, 4, 5, 4)),
    "embedding": (nn.Embedding(7, 5), torch.tensor([[0, 6, 2]])),
    "linear": (nn.Linear(6, 4), torch.randn(2, 3, 6)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_masked_layers_of_every_kind(kind):
    dense, x = LAYERS[kind]
    model = nn.Sequential(dense)
    matrices = layer_matrices(model)
    factors = components(matrices, "entries")
    keep = [torch.arange(f.count) % 3 > 0 for f in factors]
    small = build(model, factors, keep)
    expected = copy.deepcopy(model)
    layer_kind = kind_of(dense)
    masked = matrices["0"].weight.clone()
    for f, mask in zip(factors, keep, strict=True):
        f.block.of(masked)[~f.stays(mask)] = 0
    layer_kind.set_rows(expected[0], slice(None), masked)
    assert torch.equal(small(x), expected(x)) and torch.equal(small[0].weight[:], expected[0].weight)
    if kind != "embedding":
        scale, shift = torch.rand(small[0].rows), torch.rand(small[0].rows)
        for module in (small[0], expected[0]):
            layer_kind.scale_rows(module, scale, shift)
        assert torch.allclose(small(x), expected(x), atol=1e-6)
    plain = lrp.unfold(small)
    assert torch.allclose(plain(x), expected(x), atol=1e-6) and all(p.requires_grad for p in plain.parameters()), "it can be trained on"


def test_compensation_keeps_to_the_mask(residual):
    """Each row is the constrained least squares solution."""
    x = torch.randn(40, 3, 6, 5, generator=torch.Generator().manual_seed(3)).double()
    options = {"method": "singular_vectors", "scorer": "magnitude", "samples": 10**6}
    for basis in ("filters", "entries"):
        plain = lrp.compress(residual, x, 0.5, decomposition=basis, compensation="none", **options)[0]
        fitted = lrp.compress(residual, x, 0.5, decomposition=basis, **options, compensation=LeastSquares(0.0))[0]
        for name in ("stem", "conv1"):
            assert torch.equal(plain.get_submodule(name).mask, fitted.get_submodule(name).mask)
        reads = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)
        reads = torch.cat([reads, torch.ones(len(reads), 1, dtype=torch.float64)], 1)
        target = residual.stem(x).movedim(1, -1).flatten(0, 2)
        for row, mask in enumerate(fitted.stem.mask):
            among = torch.cat([mask, torch.ones(1, dtype=torch.bool)])
            best = torch.linalg.lstsq(reads[:, among], target[:, row]).solution
            assert close(fitted.stem.weight_matrix()[row][mask], best[:-1], 1e-6)
        assert (fitted(x) - residual(x)).norm() < (plain(x) - residual(x)).norm()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"budget": "macs"}, "^budget=macs: with decomposition=entries what is removed is zero"),
        ({"selection": "joint"}, "^selection=joint: it holds the change of each image by each component"),
        (
            {"forms": ["tucker2"], "selection": "lagrangian", "scorer": "perturbation"},
            "^decomposition=entries: it knows the form matrix alone",
        ),
    ],
)
def test_what_needs_smaller_layers_is_refused(residual, options, sentence):
    with pytest.raises(InputError, match=sentence):
        lrp.compress(residual, X, 0.5, **{"method": "singular_vectors", "decomposition": "entries", "scorer": "magnitude", **options})


@pytest.mark.parametrize("basis", ["filters", "entries"])
def test_nothing_removed_is_the_network_itself(basis, residual):
    same, report = lrp.compress(residual, X, 0.0, method="singular_vectors", decomposition=basis, scorer="lamp")
    assert same_state(same, residual) and torch.equal(same(X), residual(X)) and report.what.str.startswith("left dense").all()
