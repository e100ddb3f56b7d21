"""Gradients of losses that need no labels."""

import torch
from torch import nn

from lrp.batches import Batches
from lrp.layer.build import kind_of
from lrp.network.own_loss import mean_gradients


class Both(nn.Module):
    """A transposed convolution folds its weight by groups; an embedding has its vectors as columns."""

    def __init__(self):
        super().__init__()
        self.words, self.up, self.head = nn.Embedding(9, 4), nn.ConvTranspose1d(4, 6, 3, groups=2), nn.Linear(6, 3)

    def forward(self, ids):
        return self.head(self.up(self.words(ids).transpose(1, 2)).mean(2))


def test_gradients_are_of_the_layer_matrix_of_every_kind():
    torch.manual_seed(0)
    model, ids = Both().double(), torch.randint(0, 9, (5, 7))
    found = mean_gradients(model, ["words", "up"], Batches.of(ids), lambda y: y)
    y = model(ids)
    loss = nn.functional.cross_entropy(y, y.detach().argmax(1))
    expected = torch.autograd.grad(loss, [model.words.weight, model.up.weight])
    for name, grad in zip(("words", "up"), expected, strict=True):
        layer = model.get_submodule(name)
        with torch.no_grad():
            layer.weight.copy_(grad)
        assert torch.allclose(found[name], kind_of(layer).matrix(name, layer).weight, atol=1e-12)
