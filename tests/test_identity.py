"""What keys know of a network: everything that it computes with, and nothing that changes from one process to the next."""

import functools
import subprocess
import sys

import pytest
import torch
from torch import nn

from lrp.files import sha256
from lrp.identity import computes


class Net(nn.Module):
    def __init__(self, **held):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        vars(self).update(held)


class Options:
    def __init__(self, **held):
        vars(self).update(held)


def key(**held):
    return sha256(computes(Net(**held).modules()))


def scaled(by):
    return lambda x: x * by


@pytest.mark.parametrize("one, other", [
    (torch.relu, torch.tanh), (2, 3), (2, 2.0), ("a", "b"), ([1, 2], [2, 1]), ({"a": 1}, {"a": 2}), (torch.ones(2), torch.zeros(2)),
    (functools.partial(torch.clamp, min=0), functools.partial(torch.clamp, min=1)), (Options(a=1), Options(a=2)),
    (Options(a=[Options(b=1)]), Options(a=[Options(b=2)])), (scaled(2), scaled(3)), (lambda x: x, lambda x: -x), (None, False),
    (torch.float32, torch.float64), (dict, list),
])  # fmt: skip
def test_what_a_network_computes_with_makes_another_key(one, other):
    assert key(held=one) == key(held=one) and key(held=one) != key(held=other) and key(held=one) != key(other=one)


@pytest.mark.long
def test_it_holds_no_addresses_and_ends():
    held = Options(a={1, 2, 3})
    held.itself = held
    assert key(held=held) == key(held=(again := Options(a={3, 2, 1}))) or again  # sets have no order; one that holds itself ends
    assert " at 0x" not in str(computes(Net(held=object(), f=scaled(1), g=functools.partial(scaled, 2)).modules()))
    code = "import torch; from torch import nn; from lrp.files import sha256; from lrp.identity import computes\n"
    code += "m = nn.GELU(); m.held = {'b', 'a', 'c'}, torch.relu, object(); print(sha256(computes([m])))"
    assert len({subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}) == 1


def test_lrps_own_networks_by_their_options():
    from lrp.model.small_lm import SmallLM

    networks = [SmallLM(num_classes=11, width=8, layers=1, heads=heads) for heads in (2, 4)]
    assert len({sha256(computes(network.modules())) for network in networks}) == 2
