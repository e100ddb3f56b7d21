"""The paper's three blockings cut as specified; what every blocking fulfils is in contract/test_blocking.py."""

import pytest
import torch

from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.blocking.square import SquareBlocking
from lrp.errors import InputError
from lrp.layer.build import layer_matrices
from lrp.matrices import LayerMatrix
from lrp.model.vgg16 import VGG16


@pytest.mark.slow
def test_counts_on_vgg16():
    with torch.device("meta"):
        matrices = layer_matrices(VGG16())
    counts = {b.name: (len(b(matrices)), sum(x.rank for x in b(matrices))) for b in (Unblocked(), AldsBlocking(), SquareBlocking())}
    assert counts == {"none": (14, 4197), "alds": (55, 16707), "square": (151, 33984)}


@pytest.mark.parametrize(("channels", "k"), [(3, 4), (10, 4), (8, 3), (1, 8)])
def test_alds_groups_are_whole_channels_and_even(channels, k):
    blocks = AldsBlocking(k)({"a": LayerMatrix("a", torch.randn(5, channels * 9), 9)})
    sizes = [(b.col_stop - b.col_start) / 9 for b in blocks]
    assert len(blocks) == min(k, channels) and max(sizes) - min(sizes) <= 1 and all(s == int(s) for s in sizes)


@pytest.mark.parametrize("shape", [(4, 11), (11, 4), (5, 5)])
def test_square_sides(shape):
    blocks = SquareBlocking()({"a": LayerMatrix("a", torch.randn(shape), 1)})
    side = min(shape)
    assert all(b.shape == (side, side) for b in blocks[:-1]) and max(blocks[-1].shape) <= side
    assert (blocks[0].row_start, blocks[0].col_start) == (0, 0)


@pytest.mark.parametrize("k", [0, -1, 1.5, "4", True])
def test_k_is_checked(k):
    with pytest.raises(InputError, match="blocking.k="):
        AldsBlocking(k)
