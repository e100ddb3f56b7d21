"""Which layers are matrices, spans, and blocks that must partition them."""

import pytest
import torch
from torch import nn

from lrp.layer.build import layer_matrices
from lrp.matrices import Block, Factors, LayerMatrix, Use, seen_by
from lrp.order import Order
from lrp.partition import check_partition, spans
from lrp.shelf import Shelf, handle_of


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


@pytest.mark.parametrize("order", [None, Order((2, 0, 1), 2, (3, 1, 0, 2))])
def test_what_is_put_is_what_of_gives(order):
    block, matrix = Block("layer", 0, 1, 3, 2, 6, order=order), torch.randn(4, 6)
    before, values = matrix.clone(), torch.randn(2, 4)
    block.put(matrix, values)
    assert torch.equal(block.of(matrix), values)
    block.put(matrix, block.of(before))
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("turned", [False, True])
def test_what_another_layer_has_of_components_stays_in_its_file(turned):
    """Those of all layers together are several times the network: scoring reads them one after the other."""
    U, V = torch.randn(4, 3), torch.randn(3, 6)
    factors = Factors(Block("first", 0, 0, 4, 0, 6), U, torch.ones(3), V).laid_on(Shelf(kept=0))
    seen = seen_by(factors, Use("second", transposed=turned))
    assert not any(isinstance(handle_of(each, name), torch.Tensor) for each in (factors, seen) for name in ("U", "V"))
    assert (seen.block.layer, seen.block.shape) == ("second", (6, 4) if turned else (4, 6))
    assert torch.equal(seen.U @ seen.V, (U @ V).T if turned else U @ V)
