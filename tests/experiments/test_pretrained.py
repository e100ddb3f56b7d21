"""What the table of pretrained networks measures, against its definition; networks and texts of the packages are not at hand here."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))  # the scripts there are not part of the package

pretrained, networks = (importlib.import_module(name) for name in ("pretrained", "pretrained_networks"))


def test_divergence_is_the_mean_over_places():
    """Two places of one example: at one nothing changed, at the other (1/2, 1/2) became (1/4, 3/4)."""
    network = networks.NETWORKS["iglm-s"]
    dense = torch.zeros(1, 2, 2, dtype=torch.float64)
    small = dense.clone()
    small[0, 1] = torch.tensor([math.log(0.25), math.log(0.75)])
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    found = pretrained.lost(network, dense, small)
    assert found["divergence"] == pytest.approx(by_hand / 2)
    assert found["agreement"] == 0.5, "of equal classes the first is the likeliest"


def test_a_sentence_is_not_compared_with_itself():
    """Turning all embeddings at once changes no cosine, and the nearest sentence of the first two is each other."""
    z = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), dim=1)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert networks.likeness(z).argmax(1).tolist()[:2] == [1, 0]
    found = pretrained.lost(networks.NETWORKS["minilm"], z, z @ turn)
    assert found["divergence"] == pytest.approx(0, abs=1e-9)
    assert found["agreement"] == 1
    assert found["distance"] == pytest.approx(2)


@pytest.mark.parametrize(("bins", "same"), [(2, 1.0), (3, 0.0)])
def test_pitches_agree_within_50_cents(bins, same):
    """A bin is 20 cents."""
    peaks = -0.5 * (torch.arange(360) - torch.tensor([[100.0], [100.0 + bins]])).square()
    assert networks.same_pitch(peaks[:1], peaks[1:]).item() == same


def test_tones_are_drawn_by_the_seed():
    """Each frame has mean 0 and deviation 1, as the network expects."""
    first, others = networks.tones(None, 3, 2, torch.Generator().manual_seed(0), None)
    again, _ = networks.tones(None, 3, 2, torch.Generator().manual_seed(0), None)
    assert (first.shape, others.shape) == ((3, 1024), (2, 1024))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.testing.assert_close(first.std(1), torch.ones(3))
    torch.testing.assert_close(first.mean(1), torch.zeros(3), rtol=0, atol=1e-5)
