"""Layers whose matrix is a product of several trained matrices, and their collapse to one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Product(nn.Module):
    """A Linear or Conv2d whose matrix (M, N) is W_d ... W_2 W_1, W_1 (M, N) and the others (M, M), all trained.

    The function and its gradients are those of d linear layers in a row (of a convolution: followed by d - 1 convolutions of
    1 x 1) without anything between; the product is formed once a forward. Glorot's normal initialisation, which keeps the
    variance through the chain; the bias is the layer's. Source: Huh et al., TMLR 2023, section 4 (linear over-parameterisation).
    """

    def __init__(self, dense: nn.Linear | nn.Conv2d, depth: int) -> None:
        super().__init__()
        self.kernel = dense.weight.shape[1:]
        rows, columns = dense.weight.shape[0], dense.weight[0].numel()
        self.matrices = nn.ParameterList(nn.Parameter(torch.empty(rows, columns if i == 0 else rows)) for i in range(depth))
        for matrix in self.matrices:
            nn.init.xavier_normal_(matrix)
        self.bias = nn.Parameter(torch.zeros(rows))
        self.padding = getattr(dense, "padding", None)

    def weight_matrix(self) -> Tensor:
        """The product (M, N)."""
        result = self.matrices[0]
        for matrix in self.matrices[1:]:
            result = matrix @ result
        return result

    def forward(self, input: Tensor) -> Tensor:
        """What a Linear or a convolution with the product as its weight gives."""
        weight = self.weight_matrix().view(-1, *self.kernel)
        if self.padding is None:
            return F.linear(input, weight, self.bias)
        return F.conv2d(input, weight, self.bias, padding=self.padding)

    @torch.no_grad()
    def collapse(self) -> nn.Module:
        """One ordinary layer that computes the same."""
        weight = self.weight_matrix().view(-1, *self.kernel)
        if self.padding is None:
            layer = nn.Linear(weight.shape[1], weight.shape[0])
        else:
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], (weight.shape[2], weight.shape[3]), padding=self.padding)
        layer = layer.to(weight)
        assert layer.bias is not None
        layer.weight.copy_(weight)
        layer.bias.copy_(self.bias)
        return layer


def collapse(model: nn.Module) -> nn.Module:
    """A copy of a network with every Product collapsed to one layer."""
    result = copy.deepcopy(model)
    for name, module in list(result.named_modules()):
        if isinstance(module, Product):
            result.set_submodule(name, module.collapse())
    return result
