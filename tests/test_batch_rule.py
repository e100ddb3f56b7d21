"""What of a batch goes into a network: by its forward, or by the user's own rule."""

from collections import OrderedDict, UserDict

import pytest
import torch
from torch import nn

from lrp.batch_rule import BatchRule, Forward
from lrp.batches import Batches
from lrp.errors import InputError
from lrp.inputs import Arguments, Each

B = 5
X, T, LABELS = torch.randn(B, 3), torch.rand(B), torch.arange(B)
MAP = torch.zeros(B, 3).long()
IMAGES = [torch.rand(3, 8 + i, 9) for i in range(4)]


class One(nn.Module):
    def forward(self, x):
        return x


class Setting(nn.Module):
    def forward(self, x, features=False, scale=1.0):
        return x


class Bert(nn.Module):
    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, position_ids=None, labels=None):
        return input_ids


class Named(nn.Module):
    def forward(self, x, *, mask=None):
        return x


class Diffusion(nn.Module):
    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        return sample


class Pair(nn.Module):
    def forward(self, a, b):
        return a


class Any(nn.Module):
    def forward(self, *args, **kwargs):
        return args


class Detector(nn.Module):
    def forward(self, images, targets=None):
        return images


def same(found, expected):
    assert type(found) is type(expected), (type(found), type(expected))
    if isinstance(found, torch.Tensor):
        return torch.equal(found, expected)
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in found)
    return found == expected if isinstance(found, str) else len(found) == len(expected) and all(map(same, found, expected))


@pytest.mark.parametrize(
    ("model", "batch", "inputs", "label"),
    [
        (One, X, X, None), (One, [X], X, None), (One, (X, LABELS), X, LABELS), (One, (X, MAP), X, MAP), (One, (X, ["a"] * B), X, ["a"] * B),
        (One, (X, LABELS, T), X, LABELS), (Setting, (X, MAP), X, MAP), (Bert, (X, LABELS), X, LABELS), (Bert, (X, ["a"] * B), X, ["a"] * B),
        (Bert, UserDict(input_ids=X), {"input_ids": X}, None), (Bert, [UserDict(input_ids=X), LABELS], {"input_ids": X}, LABELS),
        (Bert, OrderedDict(input_ids=X), {"input_ids": X}, None), (Bert, [X, ["a"] * B, LABELS], X, LABELS),
        (Diffusion, (X, T), (X, T), None), (Diffusion, [X, T, LABELS], (X, T), LABELS), (Diffusion, [X], X, None),
        (Pair, (X, MAP), (X, MAP), None), (Pair, (X, MAP, X), (X, MAP), X), (Pair, ((X, MAP), LABELS), (X, MAP), LABELS),
        (One, ((X, MAP), LABELS), (X, MAP), LABELS), (Any, (X, LABELS), X, LABELS),
        (Detector, IMAGES, Each(IMAGES), None), (Detector, (tuple(IMAGES), [{}] * 4), Each(IMAGES), [{}] * 4),
        (Detector, [IMAGES, LABELS[:4]], Each(IMAGES), LABELS[:4]), (One, [X[:2], X[:3], X[:4]], Each([X[:2], X[:3], X[:4]]), None),
        (One, ([X, X + 1], LABELS), [X, X + 1], LABELS),
    ],
)  # fmt: skip
def test_the_rule(model, batch, inputs, label):
    found, beside = BatchRule(Forward.of(model()), None, "calibration")(batch)
    assert same(found, inputs)
    assert beside is label or same(beside, label)


@pytest.mark.parametrize(
    ("model", "batch", "sentence"),
    [
        (Bert, (X, MAP), r"holds \(5, 3\), \(5, 3\), and forward\(input_ids, attention_mask, token_type_ids, position_ids, ...\) may take"),
        (Bert, [X, MAP], "may take more than the first of these; say what goes in, such as inputs=lambda batch: batch.0., or"),
        (Bert, (X, LABELS, T), r"\(5, 3\), \(5,\), \(5,\), and forward"), (Named, (X, MAP), r"forward\(x, mask\) may take more"),
        (Any, (X, MAP), r"forward\(\*args, \*\*kwargs\)"), (Diffusion, (X, T, MAP), "may take more than the first 2 of these"),
        (Diffusion, (X, T, LABELS, T), r"\(5,\), \(5,\), and forward"), (None, (X, MAP), "the network may take more than the first of"),
    ],
)  # fmt: skip
def test_nothing_is_dropped_that_may_be_meant(model, batch, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        Batches.of([batch], model=model and model())
    assert str(error.value).startswith("calibration: a batch holds ") and "\n" not in str(error.value)


def test_what_the_first_batch_is_the_others_are():
    rule = BatchRule(Forward.of(Detector()), None, "calibration")
    for count in (4, 2, 1):  # a last batch of one image is a list of one example as well
        assert type(rule(IMAGES[:count])[0]) is Each
    pairs = BatchRule(Forward.of(One()), None, "calibration")
    for size in (5, 1):
        assert torch.equal(pairs([X[:size, :, None], X[:size, :2, None]])[0], X[:size, :, None])


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda b: b["x"], X), (lambda b: (b["x"], b["t"]), (X, T)), (lambda b: {"sample": b["x"]}, {"sample": X}),
        (lambda b: ((b["x"],), {"timestep": b["t"]}), Arguments((X,), {"timestep": T})), (lambda b: ((b["x"],), {}), (X,)),
        (lambda b: ((), {"sample": b["x"]}), {"sample": X}), (lambda b: list(b["x"]), Each(X)), (lambda b: (list(b["x"]),), (Each(X),)),
        (lambda b: {"sample": list(b["x"])}, {"sample": Each(X)}),
    ],
)  # fmt: skip
def test_the_users_own_rule(choose, expected):
    batches = Batches.of([{"x": X, "t": T, "file": "a.png"}], model=Diffusion(), inputs=choose)
    assert same(next(batches.split(B)), expected) and batches.labels is None
    assert same(Batches.of({"x": X, "t": T}, inputs=choose).whole(), expected)


def test_an_attention_mask_is_given_by_name():
    """By position or by name: what is padding is known from the mask."""
    expected = Arguments((X,), {"attention_mask": MAP})
    assert same(Batches.of([(X, MAP)], model=Bert(), inputs=lambda b: (b[0], b[1])).whole(), expected)
    assert same(Batches.of((X, MAP), model=Bert()).whole(), expected)
    assert same(Batches.of((X, MAP), model=Pair()).whole(), (X, MAP))


@pytest.mark.parametrize(
    ("choose", "sentence"),
    [
        (3, "^inputs=3: give a function from a batch to what the network is called with$"),
        (lambda b: 3, "^calibration: a batch holds a int"),
        (lambda b: b["y"], "^inputs=.*lambda.*: it cannot read a batch, a dict .KeyError: 'y'.$"),
        (lambda b: (b["x"], b["x"][1:]), "different numbers of examples, 5, 4"),
    ],
)  # fmt: skip
def test_one_sentence_for_a_rule_that_fails(choose, sentence):
    with pytest.raises(InputError, match=sentence):
        Batches.of([{"x": X}], inputs=choose)


def test_what_is_taken_for_labels_is_said_where_forward_could_take_it(caplog):
    assert Batches.of([(X, T), (X, T)], model=One()).labels is not None and not caplog.text
    assert Batches.of([(X, T), (X, T)], model=Bert()).labels is not None
    assert caplog.text.count("calibration: entry 2 of a batch, (5,), is taken for the labels; forward(") == 1


def test_arrays_in_a_list_are_tensors():
    assert torch.equal(Batches.of([X.numpy(), X.numpy()]).whole(), torch.cat([X, X]))
    held = Batches.of([(X.numpy(), LABELS.numpy())], model=One())
    assert torch.equal(held.whole(), X) and torch.equal(held.labels, LABELS)
    assert torch.equal(Batches.of([{"x": X.numpy()}], inputs=lambda batch: batch["x"]).whole(), X)
