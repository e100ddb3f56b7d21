"""The joint selection against a slow greedy one."""

import numpy as np
import pytest
import torch
from helpers import NAMES, compressed, method_of, same_state

from lrp.cost.costs import make_costs
from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.matrices import Block
from lrp.selection.joint import JointSelection


def slow_order(D, unit, shrinkage, mean_free):
    """Drop what raises ||D 1_S||^2 least per cost, by computing that anew for every set; D (B, K, R)."""
    D = (D - D.mean(0) if mean_free else D).numpy()
    gone, order = [], []

    def loss(which):
        together = (D[:, :, which].sum(2) ** 2).sum()
        apart = (D[:, :, which] ** 2).sum()
        return ((1 - shrinkage) * together + shrinkage * apart) / len(D)

    while len(order) < D.shape[2]:
        now = loss(gone)
        costs = {i: (loss([*gone, i]) - now) / unit[i] for i in range(D.shape[2]) if i not in gone}
        order.append(min(costs, key=costs.get))
        gone.append(order[-1])
    return order


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("mean_free", [False, True])
def test_order_is_greedy(shrinkage, mean_free):
    blocks = [Block("a", 0, 0, 3, 0, 4), Block("a", 1, 0, 3, 4, 9), Block("b", 0, 0, 5, 0, 2)]
    costs = make_costs(blocks)
    contributions = [torch.randn(6, 2, b.rank).double() * (1 + i) + 0.4 for i, b in enumerate(blocks)]
    contributions[1][:, :, 0] = -0.9 * contributions[0][:, :, 2]  # a pair that cancels
    unit = np.repeat(costs.unit, [b.rank for b in blocks])
    expected = slow_order(torch.cat(contributions, 2), unit, shrinkage, mean_free)
    found = JointSelection(shrinkage=shrinkage, mean_free=mean_free).order(contributions, costs)
    assert [len(part) for part in found] == [b.rank for b in blocks]
    assert torch.cat(found).argsort().tolist() == expected
    if shrinkage == 0:
        singles = (torch.cat(contributions, 2).square().sum((0, 1)).numpy() / unit).argsort().tolist()
        assert expected != singles  # it is not the sum of the single perturbations


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["params", "macs"])
@pytest.mark.parametrize("blocking", NAMES["blocking"])
def test_joint_budget_is_exact(net, x, blocking, budget):
    """Restoring the component dropped last would exceed it."""
    for step in (1, 3):
        fitted = method_of(budget=budget, blocking=blocking, selection=JointSelection(round_to=step)).fit(Evidence(net, x))
        for sparsity in (0, 0.1, 0.5, 0.83):
            keep = fitted.select(sparsity)
            ranks = [int(mask.sum()) for mask in keep]
            held = sum(fitted.costs.layer(name, ranks) for name in fitted.costs.blocks)
            limit = (1 - sparsity) * sum(fitted.costs.dense.values())
            assert held <= limit + 1e-9
            assert all(mask.all() or int(mask.sum()) % step == 0 or int(mask.sum()) < step for mask in keep)
            if step == 1 and sparsity:
                order = fitted.method.selection.order(fitted.contributions(), fitted.costs)
                last = max((float(part[~mask].max()), b) for b, (part, mask) in enumerate(zip(order, keep)) if not mask.all())[1]
                ranks[last] += 1
                assert sum(fitted.costs.layer(name, ranks) for name in fitted.costs.blocks) > limit


@pytest.mark.slow
def test_joint_reads_the_network_and_not_the_scores(net, x):
    one, other = (method_of(selection="joint", scorer=scorer).fit(Evidence(net, x)) for scorer in ("magnitude", "random"))
    assert same_state(compressed(one, 0.6), compressed(other, 0.6))
    with pytest.raises(
        InputError, match="^selection=joint: it adds up single changes, which estimator=exact does not keep; choose estimator=first_order$"
    ):
        method_of(selection="joint", estimator="exact").fit(Evidence(net, x)).plan(0.5)


@pytest.mark.parametrize(("options", "text"), [
    ({"shrinkage": 1}, "selection.shrinkage=1: must be a number"), ({"shrinkage": -0.1}, "selection.shrinkage=-0.1: must be a number"),
    ({"shrinkage": None}, "selection.shrinkage=null: must be a number"), ({"mean_free": 1}, "selection.mean_free=1: must be true or false"),
    ({"round_to": 0}, "selection.round_to=0: must be an integer of at least 1"),
])  # fmt: skip
def test_joint_options(options, text):
    with pytest.raises(InputError, match=f"^{text}") as error:
        JointSelection(**options)
    assert "\n" not in str(error.value) and "e-300" not in str(error.value)
