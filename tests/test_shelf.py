"""Tensors that lie in a file until they are read."""

import copy
import tempfile
from dataclasses import dataclass, replace

import pytest
import torch

from lrp.shelf import Joined, Shelf, Stored, changed, handle_of, joined, shelved, transposed


@shelved("value")
@dataclass(frozen=True)
class Held:
    number: int
    value: torch.Tensor | None = None


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_read_is_what_was_put(dtype, turn):
    """Bit for bit, in the same order in memory, on which rounding depends; also what is not a number."""
    shelf, values = Shelf(kept=0), [torch.randn(3, 5, 7).to(dtype) for _ in range(3)]
    values[0][0, 0, 0] = float("nan")
    values = [value.mT if turn else value for value in values]
    handles = [shelf.put(value) for value in values]
    for handle, value in [*zip(handles, values), *reversed([*zip(handles, values)])]:
        found = handle.read()
        assert found.stride() == value.stride() and found.dtype == dtype
        assert torch.equal(found.contiguous().view(torch.uint8), value.contiguous().view(torch.uint8))
    assert torch.equal(joined(handles).read()[3:], torch.cat(values)[3:])
    assert torch.equal(joined(values)[3:], torch.cat(values)[3:])


def test_a_field_gives_tensors_whatever_it_holds():
    value = torch.randn(4, 5).T
    held = Held(1, Shelf(kept=0).put(value))
    assert isinstance(vars(held)["value"], Stored) and torch.equal(held.value, value)
    assert torch.equal(copy.deepcopy(held).value, value)
    assert isinstance(vars(replace(held))["value"], torch.Tensor)  # so a part that reads it often can read it once
    assert Held(1).value is None
    assert torch.equal(Held(1, Joined([value, vars(held)["value"]])).value, torch.cat([value, value]))


def test_small_tensors_stay_and_so_do_all_where_nothing_can_be_written(monkeypatch):
    shelf, small = Shelf(kept=100), torch.ones(20)
    assert shelf.put(small) is small and isinstance(shelf.put(small), Stored)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert Shelf(kept=0).put(small) is small


def test_a_copy_with_another_field_reads_nothing():
    value = torch.randn(4, 5)
    held = Held(1, Shelf(kept=0).put(value))
    other = changed(held, number=2)
    assert (held.number, other.number) == (1, 2) and handle_of(other, "value") is handle_of(held, "value")
    turned = changed(held, value=transposed(handle_of(held, "value")))
    assert not isinstance(handle_of(turned, "value"), torch.Tensor) and torch.equal(turned.value, value.T)
    assert torch.equal(transposed(value), value.T)
