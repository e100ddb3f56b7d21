"""Padding counts in no statistic and in no fit."""

import copy

import pytest
import torch
from helpers import close
from texts import Reader, texts

from lrp.batches import Batches
from lrp.compensation.least_squares import LeastSquares
from lrp.estimator.first_order import FirstOrderEstimator
from lrp.evidence import Evidence
from lrp.layer_statistics.gather import gather
from lrp.layer_statistics.positions import Positions
from lrp.network.survey import find_candidates

READ = FirstOrderEstimator().read
NEEDS = ("inputs", "products", "gradients", "outputs")


def found(model, batches, samples=65536):
    candidates = find_candidates(model, batches.example)
    return candidates, gather(model, candidates, batches, NEEDS, READ, samples)


@torch.no_grad()
def slow(model, source):
    """E x x^T and E z z^T over the tokens that count, of each layer, z without its bias."""
    reads, gives = {}, {}
    names = ("a", "b", "c")
    layers = {name: model.get_submodule(name) for name in names}
    for batch in source:
        for i in range(len(batch["input_ids"])):  # each text alone, without its padding
            mask = batch["attention_mask"][i].bool()
            seen = {}
            handles = [
                layer.register_forward_hook(lambda module, args, z, name=name: seen.update({name: (args[0], z - module.bias)}))
                for name, layer in layers.items()
            ]
            model(batch["input_ids"][i][mask][None], batch["attention_mask"][i][mask][None])
            for handle in handles:
                handle.remove()
            for name in names:
                for sums, value in zip((reads, gives), seen[name]):
                    sums.setdefault(name, []).append(value.flatten(0, 1))
    mean = lambda rows: torch.cat(rows).T @ torch.cat(rows) / len(torch.cat(rows))  # noqa: E731
    return {name: (mean(reads[name]), mean(gives[name])) for name in names}


@pytest.mark.parametrize("order", ["batch first", "tokens first"])
@pytest.mark.parametrize("left", [False, True])
def test_only_tokens_count(left, order):
    model = Reader(tokens_first=order == "tokens first").double().eval()
    _, statistics = found(model, Batches.of(list(texts(4, left=left))))
    for name, (C, zz) in slow(model, texts(4)).items():
        assert close(statistics[name].inputs[0], C) and close(statistics[name].zz, zz), name


@pytest.mark.parametrize("samples", [65536, 60])
@pytest.mark.parametrize("garbage", [3, 9])
def test_more_padding_changes_nothing(samples, garbage):
    model = Reader().double().eval()
    (_, a), (_, b) = (found(model, Batches.of(list(texts(4, padding, garbage))), samples) for padding in (0, 5))
    for name in a:
        assert close(a[name].inputs[0], b[name].inputs[0]) and close(a[name].gradients, b[name].gradients)
        assert close(a[name].zz, b[name].zz)


def test_positions_are_drawn_among_those_that_count():
    counted = torch.arange(40) < torch.tensor([40, 12, 3])[:, None]
    at = Positions({"a": 40, "b": 30}, 3, 24)
    where = at.of("a", counted)
    assert where.shape == (3, 8) and all(len(row.unique()) == 8 for row in where)
    assert (where[1] < 12).all() and set(where[2].tolist()) >= {0, 1, 2}
    longer = torch.arange(50) < torch.tensor([40, 12, 3])[:, None]
    assert torch.equal(Positions({"a": 50}, 3, 24).of("a", longer)[:2], where[:2])
    assert torch.equal(at.of("b", counted), at.of("b"))  # no position for each token


def numbers(model):
    return torch.cat([p.detach().flatten() for layer in (model.a, model.b, model.c) for p in layer.parameters()])


def test_the_fit_is_of_tokens_alone():
    """What is read lacks a dimension, so that no fit is exact: with padding in it the garbage would tell."""
    model = Reader().double().eval()
    fits = []
    for padding, garbage in ((0, 3), (0, 9), (7, 3)):
        batches = Batches.of(list(texts(4, padding, garbage)))
        candidates, statistics = found(model, batches)
        spoilt = copy.deepcopy(model)
        with torch.no_grad():
            spoilt.words.weight[:, 0] = 0
        LeastSquares()(spoilt, candidates, batches, statistics)
        fits.append(numbers(spoilt))
    assert not close(fits[0], numbers(model), 0.05)
    assert close(fits[1], fits[0]) and close(fits[2], fits[0])


def test_samples_are_counted_without_padding():
    model = Reader().eval()
    source = list(texts(4, padding=20))
    evidence = Evidence(model, source, estimator=FirstOrderEstimator())
    evidence.statistics(["inputs"])
    tokens = sum(int(batch["attention_mask"].sum()) for batch in source)
    few = Evidence(model, source[:1], estimator=FirstOrderEstimator())
    few.statistics(["inputs"])
    assert few.few_samples()["c"][0] <= 1.2 * int(source[0]["attention_mask"].sum()) and tokens > 3 * 12 and not evidence.few_samples()
