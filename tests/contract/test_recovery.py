"""What every recovery fulfils: it works in place and keeps what the network is."""

import copy

import torch
from contract.adapt import every, first_components, from_python, plain_factors, recover, remove
from pytest import fixture
from torch import nn


@fixture
def dense():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    ).eval()  # fmt: skip


@every("recovery")
def test_works_in_place_and_keeps_shapes(name, dense, data, tmp_path):
    """Given one epoch, where it has any: what it learns is its own test's matter."""
    recovery = from_python("recovery", name, epochs=1)
    _, factors = plain_factors(dense, data.normalise(data.train.images[:1]))
    model = remove(dense, factors, first_components(factors, 0.5))
    parameters, modes = list(model.parameters()), [m.training for m in model.modules()]
    before, teacher = copy.deepcopy(model.state_dict()), copy.deepcopy(dense.state_dict())
    recover(recovery, model, dense, data, tmp_path)
    after, rule = model.state_dict(), f"recovery={name}: "
    assert list(after) == list(before) and all(after[k].shape == v.shape and after[k].dtype == v.dtype for k, v in before.items()), (
        rule + "names, shapes and precisions stay"
    )
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True)), rule + "it works in place"
    assert [m.training for m in model.modules()] == modes, rule + "modes stay"
    assert all(value.isfinite().all() for value in after.values()), rule + "nothing becomes infinite"
    assert all(torch.equal(teacher[k], v) for k, v in dense.state_dict().items()), rule + "the dense network stays as it is"
    same = all(torch.equal(before[k], v) for k, v in after.items())
    assert same != recovery.changes, rule + "its attribute changes says whether the network is another one afterwards"
