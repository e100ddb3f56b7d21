"""Replaying a network's layers gives each what it would have read."""

import copy
import threading

import pytest
import torch
from cases import Constants
from helpers import given_network, prune_network
from torch import nn

from lrp.batches import Batches
from lrp.network.arithmetic import layer_input
from lrp.network.layer_inputs import Replay


@torch.no_grad()
def slow_inputs(model, name, batches):
    """What a layer reads when the whole network runs."""
    found = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, a, k: found.append(layer_input(a, k).clone()), with_kwargs=True)
    for batch in batches:
        model(batch.clone())
    handle.remove()
    return found


@pytest.fixture(params=["residual", "depthwise", "tokens", "untraceable", "keywords", "encoder"])
def network(request):
    return given_network(request, 12)


def test_replay_gives_what_hooks_give(network):
    """Every layer changes once its inputs were seen; the layers behind it see that."""
    model, x = network
    batches = x.split(5)
    candidates, low = prune_network(model, x)
    of_one = 5 * max(Replay(copy.deepcopy(model), Batches.of(x), 5)._most(), default=0)
    for net, memory in (
        (copy.deepcopy(model), 1e9),
        (low, 1e9),
        (copy.deepcopy(model), 100),
        (model, 1.5 * of_one),
    ):  # all, none, some held
        whole, names = copy.deepcopy(net), list(candidates.matrices)
        images, state = x.clone(), set(vars(net))
        replay = Replay(net, Batches.of(list(batches)), len(batches[0]), memory)
        order = replay.order(names)
        assert set(order) == set(names) and len(order) == len(names)  # all that run; no unused one is a candidate
        for name in order:
            found = [part.clone() for part in replay.inputs(name)]
            expected = slow_inputs(whole, name, batches)
            assert len(found) == len(batches) and all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected))
            for changed in (net, whole):
                for p in changed.get_submodule(name).parameters():
                    p.data.mul_(1.1).add_(0.01)
        assert torch.equal(x, images) and set(vars(net)) == state  # nothing is left behind
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())


def test_replay_runs_each_layer_once_where_it_can(residual, untraceable):
    for model, most in ((residual, 1), (untraceable, 3)):
        x, count = torch.randn(4, 3, 9, 8).double(), dict.fromkeys(["first" if model is untraceable else "stem"], 0)
        (first,) = count
        replay = Replay(model, Batches.of(x), len(x))
        order = replay.order([n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))])
        handle = model.get_submodule(first).register_forward_hook(lambda *_: count.update({first: count[first] + 1}))
        for name in order:
            list(replay.inputs(name))
        handle.remove()
        assert count[first] <= most
        skipped = Replay(model, Batches.of(x), len(x))  # layers may be left out
        assert torch.allclose(next(iter(skipped.inputs("fc"))), slow_inputs(model, "fc", [x])[0])


def test_deep_layers_are_held_where_the_first_ones_are_too_large():
    """There the network runs from its beginning for the first layers alone."""
    model = nn.Sequential(nn.Linear(4, 400), nn.ReLU(), nn.Linear(400, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    x, runs = torch.randn(8, 4), []
    model[0].register_forward_hook(lambda *_: runs.append(1))
    with Replay(model, Batches.of(x), 4, memory=4 * 4 * 20) as replay:
        for name in replay.order(["0", "2", "4", "6"]):
            del runs[:]
            assert all(map(torch.equal, replay.inputs(name), slow_inputs(model, name, x.split(4))))
            del runs[-2:]  # of the slow way
            assert len(runs) == {"0": 0, "2": 2, "4": 2, "6": 0}[name]


def test_replay_of_a_layer_that_does_not_run(keywords):
    x = torch.randn(3, 12).double()
    assert Replay(keywords, Batches.of(x), len(x)).order(["right", "unused", "trunk.1", "left", "trunk.0"])[:2] == ["trunk.0", "trunk.1"]
    assert "unused" not in Replay(keywords, Batches.of(x), len(x)).order(["unused", "left"])


@pytest.mark.parametrize("traced", [True, False])
def test_replay_leaves_images_and_network_as_they_are(traced):
    model, x = Constants(traced).double().eval(), torch.randn(6, 6).double()
    images, names = x.clone(), set(vars(model))
    for _ in range(2):
        replay = Replay(model, Batches.of(x), len(x))
        for name in replay.order(["fc", "out"]):
            assert torch.allclose(next(iter(replay.inputs(name))), slow_inputs(model, name, [images])[0])
    assert torch.equal(x, images) and set(vars(model)) == names


class Wanders(nn.Module):
    """torch.fx cannot trace it; the order of its layers depends on the batch."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.runs = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), 0

    def forward(self, x):
        self.runs += 1
        first, second = (self.a, self.b) if float(x.sum()) > 0 else (self.b, self.a)
        return self.c(second(first(x).relu()).relu())


@torch.no_grad()
def test_a_network_that_cannot_be_traced_runs_once_and_waits():
    """But for batches in which its layers run in another order, and for those for which there is no room."""
    torch.manual_seed(0)
    model = Wanders().double().eval()
    x = torch.randn(20, 6).double().abs()
    x[10:15] *= -1  # the third batch
    batches, room = list(x.split(5)), 4 * 6 * 8 * 5
    threads = threading.active_count()
    for memory, runs in ((1e9, 4 + 2), (2.5 * room, 2 + 3 + 3), (0, 4 * 3)):
        whole, net = copy.deepcopy(model), copy.deepcopy(model)
        with Replay(net, Batches.of(batches), 5, memory) as replay:
            order = replay.order(["c", "b", "a"])
            assert order == ["a", "b", "c"]
            net.runs = 0
            for name in order:
                found = [part.clone() for part in replay.inputs(name)]
                assert all(torch.equal(a, b) for a, b in zip(found, slow_inputs(whole, name, batches), strict=True))
                for changed in (net, whole):
                    changed.get_submodule(name).weight.data.mul_(1.1)
        assert net.runs == runs, (memory, net.runs)
        assert threading.active_count() == threads and not any(m._forward_pre_hooks for m in net.modules())


def test_what_a_forward_raises_comes_out_and_nothing_waits():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            h = self.a(x)
            if len(x) > 1 and float(h.sum()) > -1e9:
                raise RuntimeError("not today")
            return self.b(h)

    threads, model = threading.active_count(), Fails().eval()
    with pytest.raises(RuntimeError, match="not today"), Replay(model, Batches.of(torch.randn(8, 4)), 4) as replay:
        for name in replay.order(["a", "b"]):
            list(replay.inputs(name))
    assert threading.active_count() == threads and not any(m._forward_pre_hooks for m in model.modules())
