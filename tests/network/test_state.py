"""What a network keeps besides its parameters."""

import copy

import torch
from torch import nn

import lrp


class Counting(nn.Module):
    """Updates a buffer, a number and a list whenever it runs, and keeps its last output with its graph."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 16), nn.Linear(16, 12)
        self.register_buffer("mean", torch.zeros(16))
        self.calls, self.seen, self.last = 0, [], None

    def forward(self, x):
        h = self.a(x).relu()
        self.mean.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
        self.calls += 1
        self.seen.append(len(x))
        self.last = self.b(h)
        return self.last


def test_neither_the_original_nor_the_result_is_touched():
    model = Counting()
    model.register_forward_hook(lambda module, *_: setattr(module, "hooked", getattr(module, "hooked", 0) + 1))
    model(torch.randn(5, 12))
    mean, last = model.mean.clone(), model.last
    small, _ = lrp.compress(model, torch.randn(64, 12), 0.5)
    assert (model.calls, model.seen, model.hooked) == (1, [5], 1) and torch.equal(model.mean, mean) and model.last is last
    assert (small.calls, small.seen) == (1, [5]) and torch.equal(small.mean, mean)


def test_what_was_made_within_inference_mode_trains():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))
        small, _ = lrp.compress(model, torch.randn(64, 12), 0.5)
    optimizer = torch.optim.SGD(small.parameters(), 0.1)
    before = copy.deepcopy(small.state_dict())
    small(torch.randn(4, 12)).sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], value) for name, value in small.state_dict().items())
