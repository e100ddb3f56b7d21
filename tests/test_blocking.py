"""Every blocking in conf/ partitions every matrix exactly; the paper's three do it as specified."""

import pytest
import torch
import yaml
from hydra.utils import instantiate
from torch import nn

from lrp.blocking.alds import AldsBlocking
from lrp.blocking.none import Unblocked
from lrp.blocking.square import SquareBlocking
from lrp.config.paths import CONF
from lrp.errors import InputError
from lrp.layer.build import layer_matrices
from lrp.matrices import Block, LayerMatrix, check_partition, spans
from lrp.model.vgg16 import VGG16

OPTIONS = sorted(CONF.glob("blocking/*.yaml"))
SHAPES = [(1, 1, 1), (1, 7, 1), (7, 1, 1), (5, 5, 1), (64, 3, 9), (10, 512, 1), (8, 8, 9), (30, 2, 9), (6, 2, 25)]  # M, channels, kernel


@pytest.mark.parametrize("file", OPTIONS, ids=lambda file: file.stem)
def test_exact_partition(file):
    blocking = instantiate(yaml.safe_load(file.read_text()))
    assert blocking.name == file.stem
    matrices = {str(i): LayerMatrix(str(i), torch.randn(M, c * k), k) for i, (M, c, k) in enumerate(SHAPES)}
    blocks = blocking(matrices)
    check_partition(matrices, blocks)
    assert sum(block.size for block in blocks) == sum(m.weight.numel() for m in matrices.values())


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


def test_spans():
    assert spans(10, 4) == [(0, 3), (3, 6), (6, 8), (8, 10)]


def test_a_gap_or_an_overlap_is_noticed():
    matrices = {"a": LayerMatrix("a", torch.zeros(4, 4), 1)}
    for columns in ([(0, 2), (3, 4)], [(0, 3), (2, 4)]):
        with pytest.raises(ValueError, match="layer a"):
            check_partition(matrices, [Block("a", i, 0, 4, *span) for i, span in enumerate(columns)])


def test_only_supported_layers_are_matrices():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, (1, 3)), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 2))
    assert {name: (m.shape, m.kernel) for name, m in layer_matrices(model).items()} == {"1": ((6, 12), 3), "4": ((2, 6), 1)}
