"""Rivals made of lrp's parts, against slow ways that follow the papers, and against each other."""

import copy

import pytest
import torch
from helpers import close
from torch import nn
from torch.nn import functional as F

import lrp
from lrp.blocking.none import Unblocked
from lrp.compensation.anchored import Anchored
from lrp.decomposition.activation import Activation
from lrp.decomposition.base import decompose
from lrp.decomposition.input_scaled import FLOOR, InputScaled
from lrp.decomposition.two_sided import TwoSided
from lrp.errors import InputError
from lrp.estimator.divergence import divergence
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.layer_statistics.base import LayerStatistics
from lrp.layer_statistics.gather import gather
from lrp.matrices import Block
from lrp.network.survey import find_candidates
from lrp.partition import cut

RIVALS = ("aa_svd", "asvd", "kfac_svd", "lems", "surgeon", "svd_llm", "swift_svd", "zero_sum")


def given(M=7, N=9, samples=40):
    """A matrix, inputs (samples, N), and a second moment of gradients (M, M) above its floor."""
    W, X = torch.randn(M, N).double(), torch.randn(samples, N).double() @ torch.randn(N, N).double()
    g = torch.randn(samples, M).double()
    return W, X, g.T @ g / samples


def components(decomposition, W, C=None, G=None, magnitudes=None):
    block = Block("", 0, 0, len(W), 0, W.shape[1])
    found = LayerStatistics(len(W), None if C is None else C[None], G, magnitudes=None if magnitudes is None else magnitudes[None])
    return decomposition(W, block, found)


@pytest.mark.parametrize("shape", [(7, 9), (9, 7), (6, 6)])
def test_svd_llm_is_the_activation_decomposition(shape):
    """Whitening by a Cholesky factor, truncation of W L and L undone: at every rank what lrp's eigenvectors of W C W^T give."""
    W, X, _ = given(*shape)
    C = X.T @ X / len(X)
    L = torch.linalg.cholesky(C)
    U, S, Vh = torch.linalg.svd(W @ L, full_matrices=False)
    found = components(Activation(), W, C)
    assert close(found[1], S)
    for r in range(len(S) + 1):
        slow = U[:, :r] * S[:r] @ torch.linalg.solve_triangular(L, Vh[:r], upper=False, left=False)
        assert close(found[0][:, :r] @ found[2][:r], slow)


def test_swift_svd_is_the_activation_decomposition():
    """Swift-SVD projects on the leading eigenvectors of the outputs' second moment."""
    W, X, _ = given()
    Y = X @ W.T
    _, vectors = torch.linalg.eigh(Y.T @ Y / len(Y))
    found = components(Activation(), W, X.T @ X / len(X))
    for r in range(8):
        Q = vectors.flip(1)[:, :r]
        assert close(found[0][:, :r] @ found[2][:r], Q @ Q.T @ W)


def test_kfac_svd_is_the_two_sided_decomposition():
    """G^1/2 W C^1/2 truncated, both roots undone."""
    W, X, G = given()
    roots = []
    for moment in (G, X.T @ X / len(X)):
        values, vectors = torch.linalg.eigh(moment)
        roots.append((vectors * values.sqrt() @ vectors.T, vectors / values.sqrt() @ vectors.T))
    (left, undo_left), (right, undo_right) = roots
    U, S, Vh = torch.linalg.svd(left @ W @ right, full_matrices=False)
    found = components(TwoSided(), W, X.T @ X / len(X), G)
    assert close(found[1], S)
    for r in range(len(S) + 1):
        assert close(found[0][:, :r] @ found[2][:r], undo_left @ (U[:, :r] * S[:r] @ Vh[:r]) @ undo_right)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_asvd_scales_columns(alpha):
    W, X, _ = given()
    X[:, 3] = 0  # never read
    size = X.abs().mean(0)
    found = components(InputScaled(alpha), W, magnitudes=size)
    scale = (size**alpha).clamp(min=FLOOR * float((size**alpha).max()))
    U, S, Vh = torch.linalg.svd(W @ torch.diag(scale), full_matrices=False)
    assert close(found[1], S) and close(found[0] @ found[2], W)
    for r in range(len(S) + 1):
        assert close(found[0][:, :r] @ found[2][:r], U[:, :r] * S[:r] @ Vh[:r] @ torch.diag(1 / scale))
    if alpha == 0:
        assert close(found[1], torch.linalg.svdvals(W))
    silent = components(InputScaled(0.5), W, magnitudes=torch.zeros(9).double())
    assert close(silent[1], torch.linalg.svdvals(W))


def test_asvd_refuses_a_power_below_zero():
    with pytest.raises(InputError, match="^decomposition.alpha=-1: must be a number of at least 0"):
        InputScaled(-1)


def test_mean_sizes_of_inputs(depthwise):
    """Of every layer, group and position, against unfolded inputs."""
    x = torch.randn(5, 3, 10, 9).double()
    candidates = find_candidates(depthwise, x[:1])
    found = gather(depthwise, candidates, x, ["magnitudes"], lambda y: y.flatten(1))
    seen = {}
    for name in ("pointwise", "grouped"):
        depthwise.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].detach()}))
    depthwise(x)
    assert close(found["pointwise"].magnitudes, seen["pointwise"].abs().mean((0, 2, 3))[None])
    columns = F.unfold(seen["grouped"], 3, padding=2, dilation=2)  # (B, groups * N, positions)
    assert close(found["grouped"].magnitudes, columns.abs().mean((0, 2)).view(2, -1))
    assert all(s.inputs is None and s.outputs is None for s in found.values())


class Two(nn.Module):
    """Two linear layers, the second without a bias."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(10, 12), nn.Linear(12, 11, bias=False)

    def forward(self, x):
        return self.second(F.relu(self.first(x)))


def test_aa_svd_is_the_papers_closed_form():
    """Layer by layer, with A = W X X'^T L'^-T and L' the Cholesky factor of X' X'^T: truncate A, undo L'."""
    model, x = Two().double().eval(), torch.randn(200, 10).double()
    candidates = find_candidates(model, x[:1])
    statistics = gather(model, candidates, x, Anchored().needs, lambda y: y)
    factors = decompose(candidates.matrices, cut(Unblocked(), candidates.matrices))
    rank = 3
    small = lrp.layer.build.build(model, factors, [torch.arange(len(f.S)) < rank for f in factors])
    Anchored()(small, candidates, x, statistics)
    X = torch.relu(model.first(x)).detach().T
    inputs = {"first": (x.T, x.T), "second": (X, torch.relu(small.first(x)).detach().T)}
    for name, (plain, shifted) in inputs.items():
        W = model.get_submodule(name).weight.detach()
        L = torch.linalg.cholesky(shifted @ shifted.T)
        U, S, Vh = torch.linalg.svd(W @ plain @ shifted.T @ torch.linalg.inv(L).T, full_matrices=False)
        slow = U[:, :rank] * S[:rank] @ Vh[:rank] @ torch.linalg.inv(L)
        assert close(small.get_submodule(name).weight_matrix(), slow)
    assert torch.equal(small.first.bias, model.first.bias) and small.second.bias is None
    dense = copy.deepcopy(model)
    Anchored()(dense, candidates, x, statistics)  # nothing was pruned: nothing changes
    assert close(dense(x).detach(), model(x).detach())


@pytest.mark.slow
@pytest.mark.parametrize("method", RIVALS)
def test_every_rival_compresses_tokens_and_images(method, encoder, residual):
    for model, x in ((encoder, torch.randn(24, 5, 6).double()), (residual, torch.randn(24, 3, 9, 8).double())):
        small, report = lrp.compress(model, x, 0.4, method=method)
        assert report.attrs["sparsity_params"] >= 0.4 and small(x).isfinite().all()


def test_swift_and_svd_llm_keep_the_same(residual):
    x = torch.randn(24, 3, 9, 8).double()
    one, other = (lrp.compress(residual, x, 0.5, method=name)[0] for name in ("svd_llm", "swift_svd"))
    assert torch.equal(one(x), other(x))


def test_divergence_is_that_of_every_row():
    """Classes are last in (B, K) and (B, T, K), and second in (B, K, H, W)."""
    z, y = torch.randn(2, 6, 4, 5).double()
    p, q = z.softmax(-1), y.softmax(-1)
    slow = float((p * (p.log() - q.log())).sum() / 24)
    dense, small = (nn.Sequential(nn.Identity()) for _ in range(2))
    models = {id(dense): z, id(small): y}
    for turn in (lambda v: v, lambda v: v.movedim(-1, 1)[..., None]):
        for model in (dense, small):
            model.forward = lambda _, model=model, turn=turn: turn(models[id(model)])
        found = divergence(dense, small, lrp.batches.Batches.of(torch.zeros(6, 1)), FirstOrderEstimator())
        assert found == pytest.approx(slow, rel=1e-9)
    with pytest.raises(InputError, match="the network has one output"):
        divergence(nn.Linear(3, 1), nn.Linear(3, 1), lrp.batches.Batches.of(torch.zeros(6, 3)), FirstOrderEstimator())
