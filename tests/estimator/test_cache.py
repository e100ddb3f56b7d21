"""Moments in files: computed once, made again where damaged, told apart by content."""

import threading

import pytest
import torch
from helpers import factors_of, left_by_a_kill

from lrp.blocking.none import Unblocked
from lrp.blocking.square import SquareBlocking
from lrp.estimator.cache import cached_moments, moments_key
from lrp.estimator.exact import ExactEstimator
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.network.frozen import FrozenNetwork


def test_cache(tmp_path, residual):
    """A second call computes nothing; a damaged file is made again; other weights, blocks and images have other keys."""
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    calls = []

    def compute(partial):
        calls.append(partial)
        return ExactEstimator()(residual, factors, x, partial)

    key = moments_key(FrozenNetwork(residual), residual, factors, x, "exact")
    first, seconds = cached_moments(tmp_path, key, factors, compute)
    second, again = cached_moments(tmp_path, key, factors, compute)
    assert len(calls) == 1 and seconds == again
    assert all(torch.equal(a.second, b.second) for a, b in zip(first, second))
    file = tmp_path / f"{key}.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    cached_moments(tmp_path, key, factors, compute)
    assert len(calls) == 2 and not (tmp_path / f"{key}.partial").exists()

    _, blocked = factors_of(residual, SquareBlocking())
    keys = {
        key,
        moments_key(FrozenNetwork(residual), residual, blocked, x, "exact"),
        moments_key(FrozenNetwork(residual), residual, factors, x + 1, "exact"),
        moments_key(FrozenNetwork(residual), residual, factors, x, "other"),
    }
    with torch.no_grad():
        residual.fc.bias += 1e-12
    keys.add(moments_key(FrozenNetwork(residual), residual, factors, x, "exact"))
    assert len(keys) == 5


def test_two_that_want_the_same_scores_compute_them_once(tmp_path, residual):
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    calls, results = [], []

    def compute(partial):
        calls.append(partial)
        return FirstOrderEstimator()(residual, factors, x)

    threads = [threading.Thread(target=lambda: results.append(cached_moments(tmp_path, "same", factors, compute))) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(calls) == 1 and len(results) == 3 and all(torch.equal(results[0][0][0].second, r[0][0].second) for r in results)


def test_a_change_of_the_forward_alone_has_another_key(residual):
    class Other(type(residual)):
        def forward(self, x):
            return 2 * super().forward(x)

    other = Other().double()
    other.load_state_dict(residual.state_dict())
    other.__class__.__name__ = other.__class__.__qualname__ = type(residual).__name__
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    assert str(other) == str(residual) and moments_key(FrozenNetwork(other), other, factors, x, "e") != moments_key(
        FrozenNetwork(residual), residual, factors, x, "e"
    )


def test_unfinished_layers_of_another_network_are_not_taken(tmp_path, residual):
    """Whatever lies in the folder for unfinished work: the moments are those of this network."""
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    ExactEstimator()(residual, factors, x, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == len(factors)
    with torch.no_grad():
        residual.fc.weight.mul_(2)
    _, factors = factors_of(residual, Unblocked())
    found, _ = ExactEstimator()(residual, factors, x, tmp_path)
    wanted, _ = ExactEstimator()(residual, factors, x)
    assert all(torch.equal(a.second, b.second) for a, b in zip(found, wanted))


@pytest.mark.parametrize("place", [-1, -500])
def test_one_flipped_bit_in_moments(place, tmp_path, residual, caplog):
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    compute = lambda partial: FirstOrderEstimator()(residual, factors, x)  # noqa: E731
    first, _ = cached_moments(tmp_path, "key", factors, compute)
    data = bytearray((tmp_path / "key.safetensors").read_bytes())
    data[place] ^= 0x40
    (tmp_path / "key.safetensors").write_bytes(data)
    (tmp_path / left_by_a_kill("key.safetensors")).write_bytes(b"half, of a kill")
    again, _ = cached_moments(tmp_path, "key", factors, compute)
    assert all(torch.equal(a.second, b.second) for a, b in zip(first, again)) and not list(tmp_path.glob(".*"))
    assert len(caplog.messages) == 1 and "its checksum does not fit" in caplog.text


def test_results_of_another_number_of_threads_are_not_used(tmp_path, residual, monkeypatch):
    """On them the last bits of scores depend."""
    x = torch.randn(2, 3, 8, 8).double()
    _, factors = factors_of(residual, Unblocked())
    network = FrozenNetwork(residual)
    here = moments_key(network, residual, factors, x, "exact")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert moments_key(network, residual, factors, x, "exact") != here
