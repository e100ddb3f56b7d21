"""Rounds of scoring and removing, and their stored states."""

import copy
import itertools

import pytest
import torch
from cases import PlainAndGrouped
from helpers import FACTORED, NAMES, PAIRS, compressed, method_of, randomise, same_state
from torch import nn

from lrp.config.parts import make
from lrp.errors import InputError
from lrp.evidence import Evidence
from lrp.layer.base import LowRank
from lrp.method import rounds
from lrp.method.rounds import as_dense, only_alive, schedule
from lrp.scorer.random import Random
from lrp.selection.global_ import GlobalSelection


def ranks_at(fitted, sparsity):
    """The ranks that every state keeps, at the sparsity of the next one (or at the end); blocks do not change."""
    fitted.plan(sparsity)
    states, at = getattr(fitted, "states", [fitted])[: fitted.rounds(sparsity)], [*schedule(fitted.method.keep_factor, sparsity), sparsity]
    return [[int(mask.sum()) for mask in state.select(s)] for state, s in zip(states, at)]


def test_the_sparsities_on_the_way():
    assert schedule(None, 0.9) == schedule(0.1, 0.9) == schedule(0.5, 0.5) == schedule(0.7, 0.3) == []
    assert schedule(0.5, 0.9) == [0.5, 0.75, 0.875] and schedule(0.8, 0.4) == pytest.approx([0.2, 0.36])
    assert schedule(0.5, 0) == []
    for factor, sparsity in itertools.product((0.3, 0.9), (0.1, 0.77, 0.95)):
        found = schedule(factor, sparsity)
        assert all(a < b for a, b in zip(found, [*found[1:], sparsity]))
        assert 1 - factor ** (len(found) + 1) >= sparsity - 1e-9  # the last step removes no larger share than the others
        assert found == schedule(factor, 0.96)[: len(found)]  # a larger sparsity goes through the same_state states


@pytest.mark.parametrize("value", [0, 1, -0.5, 1.5, float("nan"), "half", True])
def test_keep_factor_is_a_share(value):
    with pytest.raises(InputError, match=r"^rounds.keep_factor=.*: must be a number greater than 0 and less than 1$"):
        method_of(value)


@pytest.mark.slow
@pytest.mark.parametrize("decomposition", FACTORED)
@pytest.mark.parametrize("compensation", NAMES["compensation"])
def test_one_step_is_one_shot(net, x, decomposition, compensation):
    parts = {"scorer": "perturbation", "decomposition": decomposition, "compensation": compensation}
    one = method_of(**parts).fit(Evidence(net, x))
    small = method_of(0.2, **parts).fit(Evidence(net, x))
    assert small.rounds(0.8) == 1 and small.rounds(0.9) == 2 and one.rounds(0.9) == 1
    for sparsity in (0.3, 0.8):
        assert same_state(compressed(one, sparsity), compressed(small, sparsity))
    assert len(small.states) == 1 and small.plan(0.5).model is net


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("selection", NAMES["selection"])
@pytest.mark.parametrize(("blocking", "budget"), PAIRS)
def test_budgets_hold_and_ranks_fall(net, x, blocking, selection, budget):
    """In every state; the components that a round has dropped stay away, whatever they would score."""
    for compensation, scorer in (("least_squares", "magnitude"), ("none", "random")):
        parts = {"blocking": blocking, "selection": selection, "compensation": compensation, "scorer": scorer}
        fitted = method_of(0.7, budget, decomposition="activation", **parts).fit(Evidence(net, x))
        found = ranks_at(fitted, 0.7)
        assert len(found) == fitted.rounds(0.7) == 4
        for before, after in itertools.pairwise(found):
            assert all(a <= b for a, b in zip(after, before))
        assert found[-1] != found[0]
        for sparsity in (schedule(0.7, 0.7)[1], 0.7):
            plan = fitted.plan(sparsity)
            sizes = fitted.sizes(fitted.compress(plan)[0], plan)
            assert sizes[f"sparsity_{budget}"] >= sparsity
        assert compressed(fitted, 0.7)(x).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("selection", NAMES["selection"])
@pytest.mark.parametrize(("factor", "sparsity"), [(0.75, 0.6), (0.95, 0.2)])
def test_rounded_ranks_fall_too(x, selection, factor, sparsity):
    """What rounding frees is not spent on components that are gone; nor is what a step so small that it is met already leaves."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(90, 12), nn.ReLU(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 10)).double()
    for scorer, step in (("energy", 4), ("random", 4), ("random", 1)):
        chosen = type(make("selection", selection))(round_to=step)
        for before, after in itertools.pairwise(
            ranks_at(method_of(factor, scorer=scorer, selection=chosen).fit(Evidence(net, x)), sparsity)
        ):
            assert all(a <= b for a, b in zip(after, before))


@pytest.mark.slow
def test_scoring_again_differs_from_scoring_once(net, x):
    parts = {"scorer": "perturbation", "compensation": "least_squares", "decomposition": "two_sided"}
    one, many = compressed(method_of(**parts).fit(Evidence(net, x)), 0.6), compressed(method_of(0.8, **parts).fit(Evidence(net, x)), 0.6)
    assert not same_state(one, many)
    assert same_state(many, compressed(method_of(0.8, **parts).fit(Evidence(net, x)), 0.6))  # and is as reproducible


@pytest.mark.slow
def test_states_are_shared_by_sparsities(net, x, monkeypatch):
    """In any order; the network as it came is left as it is."""
    before = copy.deepcopy(net.state_dict())
    calls = []
    original = rounds.Rounds._next
    monkeypatch.setattr(rounds.Rounds, "_next", lambda *a: (calls.append(a[1]), original(*a))[1])
    fitted = method_of(0.8, scorer="perturbation", compensation="least_squares").fit(Evidence(net, x))
    first = compressed(fitted, 0.6)
    assert calls == schedule(0.8, 0.6)
    low = compressed(fitted, 0.3)
    assert len(calls) == 4 and same_state(first, compressed(fitted, 0.6))
    assert same_state(low, compressed(method_of(0.8, scorer="perturbation", compensation="least_squares").fit(Evidence(net, x)), 0.3))
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert fitted.plan(0).untouched and same_state(compressed(fitted, 0), net)


def test_a_random_scorer_does_not_bring_back_what_is_gone(net, x):
    fitted = method_of(0.7, scorer="random").fit(Evidence(net, x))
    fitted.plan(0.8)
    raw = Random()(fitted.first.factors, None)
    assert all(torch.equal(a, b) for a, b in zip(raw, fitted.first.scores))
    for state in fitted.states[1:]:
        gone = 0
        for f, score, again in zip(state.factors, state.scores, Random()(state.factors, None)):
            alive = int((score > 0).sum())
            assert torch.equal(score[:alive], again[:alive]) and not score[alive:].any()
            assert (f.S[alive:] < 1e-9 * max(1.0, float(f.S[0]))).all()  # the block has lost them: it is of that rank
            gone += len(score) - alive
        assert gone > 0


def test_only_alive():
    scores = [torch.ones(3), torch.ones(2), torch.ones(4)]
    found = only_alive(scores, [2, None, 0])
    assert [s.tolist() for s in found] == [[1, 1, 0], [1, 1], [0, 0, 0, 0]] and all(s.all() for s in scores)


@pytest.mark.slow
@pytest.mark.parametrize("blocking", NAMES["blocking"])
def test_as_dense_computes_the_same(net, x, blocking):
    net.train()
    net.fc1.weight.requires_grad_(False)
    fitted = method_of(blocking=blocking, compensation="least_squares", scorer="magnitude").fit(Evidence(net, x))
    for sparsity in (0.4, 0.95):
        low = compressed(fitted, sparsity)
        twin = copy.deepcopy(low)
        dense = as_dense(low, net)
        assert any(isinstance(m, LowRank) for m in low.modules()) and not any(isinstance(m, LowRank) for m in dense.modules())
        assert torch.allclose(dense(x), low(x), atol=1e-10) and same_state(low, twin)
        assert [type(m) for m in dense.modules()] == [type(m) for m in net.modules()]
        assert [m.training for m in dense.modules()] == [m.training for m in net.modules()]
        assert not dense.fc1.weight.requires_grad and dense.fc2.weight.requires_grad


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_was_killed_goes_on(net, x, tmp_path, monkeypatch):
    parts = {"compensation": "least_squares", "decomposition": "two_sided", "blocking": "square"}
    expected = compressed(method_of(0.75, **parts).fit(Evidence(net, x)), 0.7)
    saved, original = [], rounds.write

    def write(model, file, made_from):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(file.stem)
        original(model, file, made_from=made_from)

    monkeypatch.setattr(rounds, "write", write)
    with pytest.raises(KeyboardInterrupt):
        method_of(0.75, **parts).fit(Evidence(net, x, tmp_path)).plan(0.7)
    assert saved == ["1", "2"]
    monkeypatch.setattr(
        rounds, "write", lambda model, file, made_from: (saved.append(file.stem), original(model, file, made_from=made_from))
    )
    fitted = method_of(0.75, **parts).fit(Evidence(net, x, tmp_path))
    assert same_state(compressed(fitted, 0.7), expected) and saved == ["1", "2", "3", "4"]
    again = method_of(0.75, **parts).fit(Evidence(net, x, tmp_path))
    assert same_state(compressed(again, 0.7), expected) and len(saved) == 4
    assert [m.training for m in compressed(again, 0.7).modules()] == [m.training for m in expected.modules()]
    files = sorted(tmp_path.glob("rounds/*/*.safetensors"))
    assert [f.stem for f in files] == ["1", "2", "3", "4"] and not list(tmp_path.glob("rounds/*/.*"))
    # what is damaged is made again, and nothing else
    files[1].write_bytes(files[2].read_bytes())  # a whole file of another round
    files[2].write_bytes(b"")
    assert same_state(compressed(method_of(0.75, **parts).fit(Evidence(net, x, tmp_path)), 0.7), expected) and saved[4:] == ["2", "3"]
    assert same_state(compressed(method_of(0.75, **parts).fit(Evidence(net, x, tmp_path)), 0.7), expected) and len(saved) == 6


@pytest.mark.slow
def test_a_training_network_stays_one(net, x, tmp_path):
    net.train()
    net.fc1.eval()
    modes = {name: module.training for name, module in net.named_modules()}
    for _ in range(2):  # the second reads the states
        low = compressed(method_of(0.75).fit(Evidence(net, x, tmp_path)), 0.7)
        assert {name: low.get_submodule(name).training for name in modes} == modes


@pytest.mark.slow
def test_states_of_other_jobs_are_not_read(net, x, tmp_path):
    jobs = [
        (method_of(0.75), net, x, None),
        (method_of(0.7), net, x, None),
        (method_of(0.75, "macs"), net, x, None),
        (method_of(0.75, scorer="random"), net, x, None),
        (method_of(0.75, scorer=Random(seed=1)), net, x, None),
        (method_of(0.75, blocking="square"), net, x, None),
        (method_of(0.75, decomposition="activation"), net, x, None),
        (method_of(0.75, compensation="least_squares"), net, x, None),
        (method_of(0.75, selection=GlobalSelection(round_to=2)), net, x, None),
        (method_of(0.75), randomise(PlainAndGrouped(), 1), x, None),
        (method_of(0.75), net, x[:8], None),
        (method_of(0.75), net, x, 3),
    ]
    for count, (how, model, images, scoring) in enumerate(jobs):
        assert len(list(tmp_path.glob("rounds/*"))) == count
        assert same_state(
            compressed(how.fit(Evidence(model, images, tmp_path, scoring)), 0.4),
            compressed(how.fit(Evidence(model, images, None, scoring)), 0.4),
        )


def test_states_of_another_number_of_threads_are_not_used(net, x, monkeypatch):
    fitted = method_of(0.5, scorer="magnitude").fit(Evidence(net, x))
    here = fitted._key()
    assert fitted._key() == here
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert fitted._key() != here
