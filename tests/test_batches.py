"""Calibration examples in any shape, from any source: the same examples, in order, at each pass."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lrp.batches import Batches, call, examples
from lrp.errors import InputError

X = torch.arange(22.0).view(11, 2)
LABELS = torch.arange(11)
PAIRS = TensorDataset(X, LABELS)
SOURCES = {
    "tensor": lambda: X,
    "tuple": lambda: (X, -X),
    "mapping": lambda: {"a": X, "b": {"c": -X}, "flag": True},
    "list": lambda: list(X.split(4)),
    "generator": lambda: (part for part in X.split(3)),
    "loader": lambda: DataLoader(PAIRS, batch_size=4),
    "list of mappings": lambda: [{"a": part} for part in X.split(5)],
    "batches of tuples": lambda: [((part, -part), part[:, 0].long()) for part in X.split(5)],
}


def first(inputs):
    return torch.utils._pytree.tree_leaves(inputs)[0]


@pytest.mark.parametrize("count", [None, 1, 7, 100])
@pytest.mark.parametrize("source", SOURCES)
def test_the_first_examples_at_each_pass(source, count):
    batches = Batches.of(SOURCES[source](), count)
    expected = X[:count]
    assert len(batches) == len(expected)
    for size in (1, 3, 4, 11, 20):
        for _ in range(2):
            parts = list(batches.split(size))
            assert torch.equal(torch.cat([first(part) for part in parts]), expected)
            assert [examples(part) for part in parts[:-1]] == [size] * (len(parts) - 1) and 0 < examples(parts[-1]) <= size
        sizes = [examples(part) for part in batches.even(size)]
        assert sum(sizes) == len(expected) and max(sizes) - min(sizes) <= 1 and max(sizes) <= size
        assert sizes == [len(part) for part in expected.tensor_split(-(-len(expected) // size))]
    assert torch.equal(first(batches.whole()), expected) and torch.equal(first(batches.example), expected[:1])
    assert torch.equal(first(batches.take(2).whole()), expected[:2])


def test_labels_stay_with_their_examples():
    assert torch.equal(Batches.of(DataLoader(PAIRS, batch_size=4), 6).labels, LABELS[:6])
    assert torch.equal(Batches.of(DataLoader(PAIRS, batch_size=4)).take(3).labels, LABELS[:3])
    assert Batches.of(X).labels is None and Batches.of(list(X.split(4))).labels is None
    shuffled = Batches.of(DataLoader(PAIRS, batch_size=4, shuffle=True))
    assert torch.equal(shuffled.whole()[:, 0].long() // 2, shuffled.labels)


class Counting:
    """A source that counts how many of its batches are alive at once."""

    def __init__(self):
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        yield from (X[i : i + 1] + 0 for i in range(len(X)))


def test_a_stream_is_read_again_and_not_held():
    source = Counting()
    batches = Batches.of(source)
    before = source.passes
    for _ in range(3):
        assert torch.equal(torch.cat(list(batches.split(2))), X)
    assert source.passes == before + 3  # each pass reads it: nothing was kept


def test_a_source_that_changes_between_passes_is_refused():
    source = [X[:4], X[4:] + 0]
    batches = Batches.of(source)
    source[1] += 1
    with pytest.raises(InputError, match="other examples at each pass"):
        list(batches.split(3))


def test_calls():
    assert call(lambda *args, **kwargs: (args, kwargs), (1, 2)) == ((1, 2), {})
    assert call(lambda *args, **kwargs: (args, kwargs), {"a": 1}) == ((), {"a": 1})
    assert call(lambda *args, **kwargs: (args, kwargs), [3]) == (([3],), {})
    assert torch.equal(call(nn.Identity(), X), X)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (3, "calibration=int: give a tensor"), ("images", "calibration=str"), (None, "calibration=NoneType"), ([], "it is empty"),
        (X[:0], "it is empty"), ([X, X[:, :1]], "batches differ"), ((X[:3], X), "a tuple holds the arguments of one call"),
        ([X, X.int()], "batches differ.*float32.*int32"), ({"a": 1}, "a batch holds a dict"), (torch.tensor(1.0), "a batch holds a tensor"),
    ],
)  # fmt: skip
def test_one_sentence_for_bad_input(source, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        Batches.of(source)
    assert "\n" not in str(error.value)
