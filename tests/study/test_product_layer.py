"""Products of matrices in place of one."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lrp.study.product_layer import Product, collapse


@pytest.mark.parametrize("dense", [nn.Linear(6, 4), nn.Conv2d(3, 4, 3, padding=1)], ids=["linear", "conv"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_product_is_its_matrices_in_a_row(dense, depth):
    """The same outputs and gradients as d layers without anything between; collapsed to one layer it computes the same."""
    product = Product(dense, depth).double()
    nn.init.normal_(product.bias)
    x = torch.randn(2, 6, dtype=torch.float64) if isinstance(dense, nn.Linear) else torch.randn(2, 3, 5, 5, dtype=torch.float64)
    copies = [matrix.detach().clone().requires_grad_() for matrix in product.matrices]
    if isinstance(dense, nn.Linear):
        y = x
        for matrix in copies:
            y = y @ matrix.T
        y = y + product.bias
    else:
        y = nn.functional.conv2d(x, copies[0].view(4, 3, 3, 3), padding=1)
        for matrix in copies[1:]:
            y = torch.einsum("om,bmhw->bohw", matrix, y)
        y = y + product.bias.view(-1, 1, 1)
    out = product(x)
    assert_close(out, y)
    out.square().sum().backward()
    y.square().sum().backward()
    for matrix, other in zip(product.matrices, copies):
        assert_close(matrix.grad, other.grad)
    one = collapse(nn.Sequential(product).eval())
    assert type(one[0]) is type(dense) and one[0].weight.dtype == torch.float64
    assert_close(one(x), out)
