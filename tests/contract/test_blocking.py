"""What every blocking fulfils: its blocks partition every matrix."""

import pytest
import torch
from contract.adapt import blocks_of, every, from_python, survey

from lrp.matrices import LayerMatrix

SHAPES = [(1, 1, 1), (1, 7, 1), (7, 1, 1), (5, 5, 1), (64, 3, 9), (10, 512, 1), (8, 8, 9), (30, 2, 9), (6, 2, 25)]  # M, channels, kernel


def matrices():
    return {f"{M} x {c}, kernel {k}": LayerMatrix("layer", torch.randn(M, c * k), k) for M, c, k in SHAPES}


def check_partition(name, found, blocks):
    for layer, matrix in found.items():
        count = torch.zeros(matrix.shape, dtype=torch.int64)
        own = [block for block in blocks if block.layer == layer]
        for block in own:
            rows = count[block.rows]
            rows[:, block.columns] += 1
            count[block.rows] = rows
            assert min(block.shape) > 0, f"blocking={name}: no block is empty, but one of layer {layer} is"
        assert (count == 1).all(), f"blocking={name}: every entry of layer {layer} is in exactly one block"
        assert len({block.index for block in own}) == len(own), f"blocking={name}: the blocks of layer {layer} have numbers of their own"
    assert {block.layer for block in blocks} == set(found), f"blocking={name}: every layer has blocks, and no other"


@every("blocking")
def test_blocks_partition_every_matrix(name):
    found = {label: LayerMatrix(label, matrix.weight, matrix.kernel) for label, matrix in matrices().items()}
    check_partition(name, found, from_python("blocking", name)(found))


@every("blocking")
@pytest.mark.parametrize(
    "network, shape", [("depthwise", (3, 10, 9)), ("residual", (3, 9, 8)), ("chain", (4, 11)), ("small_vgg", (3, 32, 32))]
)
def test_blocks_of_networks_stay_within_a_group(name, network, shape, request):
    model = request.getfixturevalue(network)
    found = survey(model, torch.randn(1, *shape).double()).matrices
    blocks = blocks_of(from_python("blocking", name), found)
    check_partition(name, found, blocks)
    for block in blocks:
        rows = found[block.layer].shape[0] // found[block.layer].groups
        same = block.row_start // rows == (block.row_stop - 1) // rows
        assert same, f"blocking={name}: no block reaches over two groups of a grouped convolution, but one of {block.layer} does"


@every("blocking")
def test_blocks_depend_on_shapes_alone(name):
    """Two networks of one architecture are cut alike: files and scores of one fit the other."""
    (one, other) = (from_python("blocking", name)(matrices()) for _ in range(2))
    assert one == other, f"blocking={name}: the same shapes give the same blocks, whatever the weights"
