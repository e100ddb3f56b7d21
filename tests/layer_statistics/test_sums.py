"""Sums over samples, against loops."""

import pytest
import torch

from lrp.layer_statistics import sums as sums_module
from lrp.layer_statistics.sums import Sums, gram


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
