"""Batches of different lengths: padded by their attention masks, or refused."""

import pytest
import torch

from lrp.batches import Batches, counted
from lrp.errors import InputError


def texts(left=False):
    """Two examples a batch of 4, 7 and 5 tokens, one of each pair shorter by one."""
    for i, length in enumerate((4, 7, 5)):
        mask = torch.ones(2, length).long()
        mask[1, 0 if left else -1] = 0
        yield {"input_ids": (10 * i + 1 + torch.arange(length)).expand(2, -1) * mask, "attention_mask": mask, "kind": torch.full((2, 7), i)}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_padded_to_the_longest(left, streamed):
    source = texts(left) if streamed else list(texts(left))
    batches = Batches.of(source)
    assert len(batches) == 6
    for _ in range(2):
        whole = batches.whole()
        for i, part in enumerate(texts(left)):
            for name in ("input_ids", "attention_mask"):
                length = part[name].shape[1]
                found = whole[name][2 * i : 2 * i + 2]
                assert torch.equal(found[:, 7 - length :] if left else found[:, :length], part[name])
                assert found.shape == (2, 7) and found.sum() == part[name].sum()  # zeros elsewhere
    assert torch.equal(whole["kind"][:, 0], torch.tensor([0, 0, 1, 1, 2, 2]))  # as long as one of the masks, and the same in all
    assert torch.equal(batches.counted(), torch.cat([counted(part) for part in batches.split(4)]))
    assert batches.counted().sum() == 4 + 3 + 7 + 6 + 5 + 4
    assert counted(batches.example).shape == (1, 7)


def test_one_length_is_left_as_it_is():
    part = next(texts())
    batches = Batches.of([part, part])
    assert next(batches.split(2))["input_ids"].data_ptr() == part["input_ids"].data_ptr()


def test_lists_of_any_sizes_are_cut_by_example():
    source = [[torch.full((3, 4 + i, 5 + j), float(j)) for j in range(3)] for i in range(2)]
    batches = Batches.of(source)
    assert len(batches) == 6
    parts = list(batches.split(4))
    assert [[tuple(image.shape) for image in part] for part in parts] == [
        [(3, 4, 5), (3, 4, 6), (3, 4, 7), (3, 5, 5)], [(3, 5, 6), (3, 5, 7)],
    ]  # fmt: skip
    assert all(isinstance(part, list) for part in parts) and batches.counted() is None
    assert [float(image.mean()) for image in batches.drop(2).whole()] == [2.0, 0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({"x": torch.ones(2, 3)}, {"x": torch.ones(2, 4)}, r"\(3,\) float32 on cpu and \(4,\).*or give dicts .* with an attention_mask"),
        (
            {"attention_mask": torch.ones(2, 3), "x": torch.ones(2, 3, 5)}, {"attention_mask": torch.ones(2, 4), "x": torch.ones(2, 4, 6)},
            r"batches differ, .*\(3, 5\).*\(4, 6\).* pad or crop them to one shape$",
        ),
        (
            {"attention_mask": torch.ones(2, 3), "x": torch.ones(2, 9)}, {"attention_mask": torch.ones(2, 4), "x": torch.ones(2, 4)},
            "batches differ",
        ),
        ({"attention_mask": torch.ones(2, 3)}, {"attention_mask": torch.ones(2, 3).int()}, "batches differ.*float32.*int32.*one shape$"),
    ],
)  # fmt: skip
def test_what_cannot_be_padded(first, second, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        Batches.of([first, second])
    assert "\n" not in str(error.value)


def test_keywords_in_another_order_are_the_same_arguments():
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    for source in ([{"a": a, "b": b}, {"b": b, "a": a}], iter([{"a": a, "b": b}, {"b": b, "a": a}])):
        whole = Batches.of(source).whole()
        assert list(whole) == ["a", "b"] and not whole["a"].any() and whole["b"].all()


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({"a": torch.ones(2, 3)}, {"b": torch.ones(2, 3)}, r"calibration: batches differ, they give \(a\) and \(b\); give each the same"),
        ({"a": torch.ones(2, 3)}, torch.ones(2, 3), r"they give \(a\) and \(argument 1\)"),
        ({"a": torch.ones(2, 3), "f": True}, {"a": torch.ones(2, 3), "f": False}, "batches differ in what is not a tensor, True and False"),
        ({"a": torch.ones(2, 3), "flag": 1}, {"a": torch.ones(2, 3), "flag": torch.ones(2)}, "batches differ"),
        ({"a": torch.ones(2, 3), "names": ["x", "y"]}, {"a": torch.ones(1, 3), "names": ["x"]}, "batches differ, they give"),
    ],
)  # fmt: skip
def test_batches_that_give_other_arguments(first, second, sentence):
    """Joined by place, one would be taken for another."""
    for source in ([first, second], iter([first, second])):
        with pytest.raises(InputError, match=sentence):
            Batches.of(source)
