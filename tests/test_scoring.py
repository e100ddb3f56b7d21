"""Scores against a slow implementation that deletes one component and runs the whole network."""

import dataclasses

import pytest
import torch
import yaml
from hydra.utils import instantiate
from safetensors.torch import load_file, save_file
from torch import nn

from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.blocking.square import SquareBlocking
from lrp.command_line import CONF
from lrp.decomposition import decompose
from lrp.errors import InputError
from lrp.matrices import layer_matrices
from lrp.scoring.exact import ExactEstimator
from lrp.scoring.moments import cached_moments, moments_key

SCORERS = {file.stem: instantiate(yaml.safe_load(file.read_text())) for file in sorted(CONF.glob("scorer/*.yaml"))}


def factors_of(model, blocking):
    matrices = layer_matrices(model)
    return matrices, decompose(matrices, blocking(matrices))


@torch.no_grad()
def slow_differences(model, factor, x):
    """y - y_b of every component (R, B, K)."""
    y, weight = model(x), model.get_submodule(factor.block.layer).weight
    original, result = weight.clone(), []
    for i in range(factor.block.rank):
        changed = original.flatten(1).clone()
        factor.block.of(changed).sub_(factor.S[i] * torch.outer(factor.U[:, i], factor.Vh[i]))
        weight.copy_(changed.view_as(weight))
        result.append(y - model(x))
        weight.copy_(original)
    return torch.stack(result)


@pytest.mark.parametrize("blocking", [Unblocked(), AldsBlocking(), SquareBlocking()], ids=lambda b: b.name)
@pytest.mark.parametrize("network", ["small_vgg", "residual"])
def test_exact_is_the_definition(network, blocking, request):
    model = request.getfixturevalue(network)
    x = torch.randn(5, 3, 32, 32).double()
    matrices, factors = factors_of(model, blocking)
    moments, seconds = ExactEstimator()(model, factors, x)
    assert seconds > 0
    perturbation = SCORERS["perturbation"](matrices, factors, lambda: moments)
    variance = SCORERS["variance"](matrices, factors, lambda: moments)
    for i in range(0, len(factors), 3 if network == "small_vgg" else 1):
        difference = slow_differences(model, factors[i], x)
        assert torch.allclose(perturbation[i], difference.square().sum(2).mean(1), rtol=1e-7, atol=1e-12)
        assert torch.allclose(variance[i], difference.var(1, correction=0).sum(1), rtol=1e-7, atol=1e-12)


def test_memory_limit_changes_nothing(residual):
    x = torch.randn(4, 3, 16, 16).double()
    _, factors = factors_of(residual, SquareBlocking())
    many, _ = ExactEstimator(1.0)(residual, factors, x)
    single, _ = ExactEstimator(1e-9)(residual, factors, x)  # one component and one image at a time
    for a, b in zip(many, single):
        assert torch.allclose(a.second, b.second, rtol=1e-10, atol=1e-14) and torch.allclose(a.first, b.first, rtol=1e-10, atol=1e-14)


def test_invariances(residual):
    """The sign of a pair does not matter, nor the order of the images; s = 0 scores 0; modes and weights stay."""
    x = torch.randn(4, 3, 16, 16).double()
    _, factors = factors_of(residual, Unblocked())
    f = factors[1]
    flipped = dataclasses.replace(f, U=-f.U, Vh=-f.Vh)
    zeroed = dataclasses.replace(f, S=f.S * (torch.arange(len(f.S)) != 2))
    residual.train()
    state = {k: v.clone() for k, v in residual.state_dict().items()}
    (plain, negative, zero), _ = ExactEstimator()(residual, [f, flipped, zeroed], x)
    (shuffled,), _ = ExactEstimator()(residual, [f], x.flip(0))
    assert torch.allclose(plain.second, negative.second) and torch.allclose(plain.second, shuffled.second)
    assert float(zero.second[2].abs().max()) < 1e-24
    assert residual.training and all(torch.equal(state[k], v) for k, v in residual.state_dict().items())


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer(name, residual):
    """One score a component, finite and not negative."""
    scorer = SCORERS[name]
    assert scorer.name == name
    matrices, factors = factors_of(residual, AldsBlocking(2))
    scores = scorer(matrices, factors, lambda: ExactEstimator()(residual, factors, torch.randn(2, 3, 8, 8).double())[0])
    assert [s.shape for s in scores] == [(f.block.rank,) for f in factors]
    assert all(bool(torch.isfinite(s).all()) and float(s.min()) >= 0 for s in scores)


def test_relative_error_is_relative_to_the_unblocked_matrix(residual):
    matrices, factors = factors_of(residual, SquareBlocking())
    for f, score in zip(factors, SCORERS["relative_error"](matrices, factors, lambda: [])):
        whole = torch.linalg.svdvals(matrices[f.block.layer].weight)[0]
        assert torch.allclose(score, f.S / whole)


def test_cache(tmp_path, residual):
    """A second call computes nothing; a damaged file is made again; other weights, blocks and images have other keys."""
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    calls = []

    def compute(partial):
        calls.append(partial)
        return ExactEstimator()(residual, factors, x, partial)

    key = moments_key(residual, factors, x, "exact")
    first, seconds = cached_moments(tmp_path, key, factors, compute)
    second, again = cached_moments(tmp_path, key, factors, compute)
    assert len(calls) == 1 and seconds == again
    assert all(torch.equal(a.second, b.second) for a, b in zip(first, second))
    file = tmp_path / f"{key}.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    cached_moments(tmp_path, key, factors, compute)
    assert len(calls) == 2 and not (tmp_path / f"{key}.partial").exists()

    _, blocked = factors_of(residual, SquareBlocking())
    keys = {key, moments_key(residual, blocked, x, "exact"), moments_key(residual, factors, x + 1, "exact"), moments_key(residual, factors, x, "other")}
    with torch.no_grad():
        residual.fc.bias += 1e-12
    keys.add(moments_key(residual, factors, x, "exact"))
    assert len(keys) == 5


@pytest.mark.parametrize("memory_limit", [1.0, 1e-9])
def test_a_killed_run_goes_on_after_the_last_finished_layer(tmp_path, residual, monkeypatch, memory_limit):
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    estimator = ExactEstimator(memory_limit)
    undisturbed, _ = estimator(residual, factors, x)
    real, seen = ExactEstimator._layer, []

    def dies_at_third(self, network, known, name, factors, bar):
        seen.append(name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self, network, known, name, factors, bar)

    monkeypatch.setattr(ExactEstimator, "_layer", dies_at_third)
    with pytest.raises(KeyboardInterrupt):
        estimator(residual, factors, x, tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 2
    marked = load_file(files[1])
    marked["moments"] += 1000  # proof that the stored layer is read, not computed again
    save_file(marked, files[1])
    resumed, _ = estimator(residual, factors, x, tmp_path)
    assert torch.equal(resumed[0].second, undisturbed[0].second) and torch.equal(resumed[4].second, undisturbed[4].second)
    assert float(resumed[1].first.min()) > 400


def test_networks_that_cannot_be_scored_are_refused_by_name():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(self.fc(x))

    class Branches(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x

    model = Twice()
    _, factors = factors_of(model, Unblocked())
    with pytest.raises(InputError, match="layer fc: it runs more than once"):
        ExactEstimator()(model, factors, torch.randn(2, 3))
    with pytest.raises(InputError, match="torch.fx cannot trace"):
        ExactEstimator()(nn.Sequential(nn.Linear(3, 3), Branches(3, 3)), factors, torch.randn(2, 3))


def test_a_weight_that_is_not_finite_names_the_layer(residual):
    residual.conv2.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="layer conv2"):
        factors_of(residual, Unblocked())


def test_svd_gives_the_blocks_back(residual):
    for blocking in (Unblocked(), AldsBlocking(), SquareBlocking()):
        matrices, factors = factors_of(residual, blocking)
        for f in factors:
            assert torch.allclose((f.U * f.S) @ f.Vh, f.block.of(matrices[f.block.layer].weight), atol=1e-12)
            assert bool((f.S.diff() <= 0).all())
