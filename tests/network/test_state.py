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
    assert all(not torch.equal(before[name], value) for name, value in small.named_parameters())


class Keeps(nn.Module):
    """Keeps what it computes in every kind of place."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.out = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 8)
        self.register_buffer("mean", torch.zeros(()))
        self.seen, self.named = [], {}

    def forward(self, x):
        h = self.bn(self.conv(x))
        self.mean = 0.9 * self.mean + 0.1 * h.mean().detach()
        self.last = h
        self.seen.append(h)
        self.named["h"] = h
        return self.out(h.mean((2, 3)))


def test_no_tracer_is_left_behind():
    model = Keeps().eval()
    small, _ = lrp.compress(model, torch.randn(32, 3, 8, 8), 0.5, exclude="conv")
    fused = lrp.fuse(small)
    assert float(fused.mean) == 0 and fused.seen == [] and fused.named == {} and not hasattr(fused, "last")


def test_backward_hooks_of_the_user_do_not_change_scores():
    torch.manual_seed(0)
    model, x, calls = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 12)), torch.randn(200, 12), []
    before, _ = lrp.compress(model, x, 0.5)
    model[2].register_full_backward_hook(lambda module, given, _: (calls.append(1), tuple(g * 0 for g in given))[1])
    after, _ = lrp.compress(model, x, 0.5)
    assert not calls and all(torch.equal(p, q) for p, q in zip(before.parameters(), after.parameters(), strict=True))
    after(x).sum().backward()
    assert calls
