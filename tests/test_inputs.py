"""What a network is called with, in each of its forms."""

import torch

from lrp.batches import Batches
from lrp.inputs import Arguments, Each, arguments, call, counted, cut, examples, join, on_tensors, pad, tensors

X = torch.arange(12.0).view(4, 3)
SIZES = Each(torch.full((3, i + 1, 2), float(i)) for i in range(4))
MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1]])
FORMS = {
    "tensor": X,
    "tuple": (X, -X),
    "mapping": {"a": X, "flag": True},
    "both": Arguments((X,), {"b": -X}),
    "each": SIZES,
    "inside": ({"images": SIZES}, X),
}


def record(*args, **kwargs):
    return args, kwargs


def test_a_call_is_given_what_the_form_says():
    assert call(record, Arguments((1, 2), {"a": 3})) == ((1, 2), {"a": 3})
    (given,), named = call(record, SIZES)
    assert isinstance(given, list) and all(map(torch.equal, given, SIZES)) and named == {}
    assert not any(a is b for a, b in zip(given, SIZES, strict=True))  # a network may write into them
    for form in FORMS.values():
        again = call(record, arguments(form))
        assert str(again) == str(call(record, form))


def test_examples_are_cut_and_joined():
    for name, form in FORMS.items():
        assert examples(form) == 4, name
        parts = [cut(form, 0, 1), cut(form, 1, 3), cut(form, 3)]
        assert [examples(part) for part in parts] == [1, 2, 1]
        joined = join(parts)
        assert all(torch.equal(a, b) for a, b in zip(tensors(joined), tensors(form), strict=True))
        assert str(call(record, joined)) == str(call(record, form))  # the same form, with what is no tensor


def test_functions_reach_each_tensor_and_change_no_form():
    doubled = on_tensors(lambda leaf: 2 * leaf, FORMS["inside"])
    assert type(doubled[0]["images"]) is Each and torch.equal(doubled[1], 2 * X)
    assert all(torch.equal(a, 2 * b) for a, b in zip(doubled[0]["images"], SIZES, strict=True))


def test_which_tokens_count():
    for inputs in ({"attention_mask": MASK}, Arguments((X,), {"attention_mask": MASK.float()}), {"attention_mask": MASK.bool()}):
        assert torch.equal(counted(inputs), MASK.bool())
    assert counted(X) is counted((X, MASK)) is counted({"mask": MASK}) is counted({"attention_mask": MASK[:, None, None]}) is None


def test_padding_is_zeros_at_one_end():
    batch = {"ids": X, "other": X, "features": X[:, :, None].expand(4, 3, 2)}
    for left in (False, True):
        longer = pad(batch, {0, 2}, 5, left)
        real, zeros = (slice(2, None), slice(0, 2)) if left else (slice(0, 3), slice(3, None))
        assert longer["ids"].shape == (4, 5) and longer["features"].shape == (4, 5, 2) and longer["other"] is X
        assert torch.equal(longer["ids"][:, real], X) and torch.equal(longer["features"][:, real], batch["features"])
        assert not longer["ids"][:, zeros].any() and not longer["features"][:, zeros].any()


def test_a_batch_of_any_form_is_a_source():
    for form in FORMS.values():
        assert str(call(record, Batches.of(form).whole())) == str(call(record, form))
        assert [examples(part) for part in Batches.of(form).split(3)] == [3, 1]
