"""Effective rank, by hand."""

import math

import numpy as np
import pytest
import torch

from lrp.study.effective_rank import effective_rank


@pytest.mark.parametrize("k", [1, 3, 10])
def test_effective_rank_of_equal_values(k):
    """k equal singular values, and zeros beside them: log k, and k."""
    entropy, exponential = effective_rank(torch.cat([torch.full((k,), 2.5), torch.zeros(4)]))
    assert math.isclose(entropy, math.log(k), abs_tol=1e-12) and math.isclose(exponential, k, rel_tol=1e-12)


def test_effective_rank_by_hand():
    p = np.array([0.5, 0.25, 0.25])
    assert math.isclose(effective_rank(torch.tensor(p * 7))[0], -(p * np.log(p)).sum(), rel_tol=1e-12)
    assert effective_rank(torch.zeros(3)) == (0.0, 0.0)
    with pytest.raises(ValueError, match="not negative"):
        effective_rank(torch.tensor([1.0, -1.0]))
