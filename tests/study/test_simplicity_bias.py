"""The networks and measures of the simplicity bias."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lrp.study.product_layer import Product, collapse
from lrp.study.simplicity_bias import gram_eigenvalues, make_network


@pytest.mark.parametrize("name", ["linear", "mlp", "conv"])
def test_networks_collapse(name):
    model = make_network(name, 3, 1, 32, 10)
    x = torch.rand(4, 1, 32, 32)
    assert_close(collapse(model)(x), model(x), atol=1e-5, rtol=1e-4)
    assert all(len(module.matrices) == 3 for module in model.modules() if isinstance(module, Product))


def test_gram_eigenvalues_are_those_of_the_matrix_of_cosines():
    embedding = torch.randn(7, 5)
    cosines = np.corrcoef(np.hstack([embedding.numpy(), -embedding.numpy()]))  # of mean zero rows: cosines
    values = gram_eigenvalues(embedding).numpy()
    assert np.allclose(np.sort(values)[::-1], np.sort(np.linalg.eigvalsh(cosines))[::-1][:5], atol=1e-6)
