"""Perturbations of a layer's input side, against the network without each component."""

import copy

import torch
from torch import nn

from lrp.batches import Batches
from lrp.estimator.inputs import input_perturbations
from lrp.form.unfolding import input_components
from lrp.network.frozen import FrozenNetwork


def test_a_linear_network_with_one_output_is_exact():
    """One output has one sign, whose square is 1; behind linear layers first order is all there is. Both orders of multiplication."""
    torch.manual_seed(0)
    layers = {"small map": (nn.Conv2d(4, 6, 3, padding=1), (2, 2)), "large map": (nn.Conv2d(4, 6, (3, 2), padding=2, stride=2), (9, 8))}
    for conv, size in layers.values():
        model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 1)).double()
        x = torch.randn(5, 4, *size).double()
        for kernel in {conv.weight[0, 0].numel(), conv.kernel_size[1]}:
            U, V = input_components(conv.weight.detach().flatten(1), kernel)
            found = input_perturbations(FrozenNetwork(model, x[:1]), {"0": [(U, V)]}, Batches.of(x), lambda y: y)["0"][0]
            for j in range(U.shape[1]):
                without = copy.deepcopy(model)
                component = (U[:, j, None, None] * V[j]).transpose(0, 1)  # (M, C, k)
                without[0].weight.data -= component.reshape(conv.weight.shape)
                change = (model(x) - without(x)).square().sum(1).mean()
                assert torch.allclose(found[j], change, rtol=1e-8)


def test_groups_and_many_outputs():
    """Each group for itself; with several outputs the estimate is near the truth, and the same however many images run at once."""
    torch.manual_seed(0)
    conv = nn.Conv1d(6, 8, 3, padding=1, groups=2)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(40, 7)).double()
    x = torch.randn(4000, 6, 5).double()
    parts = [input_components(part.double(), 3) for part in conv.weight.detach().flatten(1).chunk(2)]
    found = input_perturbations(FrozenNetwork(model, x[:1]), {"0": parts}, Batches.of(x), lambda y: y)["0"]
    J = torch.stack([torch.autograd.functional.jacobian(model[1:], model[0](x[i : i + 1]))[0, :, 0] for i in range(200)])  # (B, K, M, P)
    for group, (U, V) in enumerate(parts):
        unfolded = nn.functional.pad(x[:200], (1, 1)).unfold(2, 3, 1)[:, 3 * group : 3 * group + 3]  # (B, C, P, k)
        change = torch.einsum("bnmp,bcpk,cj,jmk->bnj", J[:, :, 4 * group : 4 * group + 4], unfolded, U, V)
        assert torch.allclose(found[group], change.square().sum(1).mean(0), rtol=0.2)


def test_a_layer_that_nothing_depends_on():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.lost, self.kept = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)

        def forward(self, x):
            return (self.lost(x).detach() + self.kept(x)).mean((2, 3))

    model = Detached()
    parts = {name: [input_components(getattr(model, name).weight.detach().flatten(1), 9)] for name in ("lost", "kept")}
    x = torch.randn(4, 2, 5, 5)
    found = input_perturbations(FrozenNetwork(model, x[:1]), parts, Batches.of(x), lambda y: y)
    assert [*found] == ["kept"] and bool((found["kept"][0] > 0).all())
