"""Channels of features, numbers that are joined where features meet, and tensors of them that accompany a network's values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NEVER = 0  # the channel of whatever cannot go


@dataclass(frozen=True)
class Count:
    """A number that changes where one of these channels goes: a size, and what is made of it. Of most sizes there are none."""

    channels: tuple[Tensor, ...] = ()


class Joined:
    """Channels: which are one, and which cannot go.

    Attributes:
        reasons: Why channels cannot go, each by the one number that stands for all that are joined with it.
    """

    def __init__(self) -> None:
        self._parent = [NEVER]
        self.reasons = {NEVER: "not the output of a layer"}

    def root(self, channel: int) -> int:
        """The number that stands for all that a channel is joined with."""
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def new(self, count: int) -> Tensor:
        """So many channels that are joined with none, (count,) int64."""
        start = len(self._parent)
        self._parent += range(start, start + count)
        return torch.arange(start, start + count)

    def fix(self, ids: Any, reason: str) -> None:
        """None of these channels can go."""
        for each in tensors_of(ids):
            for channel in each.unique().tolist():
                self.reasons.setdefault(self.root(channel), reason)

    def join(self, one: Tensor, other: Tensor) -> None:
        """Entry by entry they are one."""
        one, other = torch.broadcast_tensors(one, other)
        for pair in torch.stack([one.flatten(), other.flatten()], 1).unique(dim=0).tolist():
            keep, go = sorted(self.root(channel) for channel in pair)
            if keep == NEVER:
                self.reasons.setdefault(go, "it meets something that is not the output of a layer")
            elif keep != go:
                self._parent[go] = keep
                if go in self.reasons:
                    self.reasons.setdefault(keep, self.reasons[go])


def unknown(value: Any) -> Any:
    """Channels that cannot go, of the shape of a value; of a list of values a tuple."""
    if isinstance(value, Tensor):
        return torch.zeros((), dtype=torch.int64).expand(value.shape)
    return tuple(unknown(each) for each in value) if isinstance(value, tuple | list) else None


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in a value; of channels all that it has to do with."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Count):
        return list(value.channels)
    return [each for part in value for each in tensors_of(part)] if isinstance(value, tuple | list) else []


def shape_of(value: Any) -> Any:
    """The shape of a value, of several a list; None of one that is no tensor."""
    return value.shape if isinstance(value, Tensor) else [shape_of(each) for each in value] if isinstance(value, tuple | list) else None


def varying(ids: Tensor) -> list[int]:
    """The dimensions along which the channels of a value differ."""
    many = [dim for dim in range(ids.dim()) if ids.shape[dim] > 1 and ids.stride(dim) != 0]
    return [dim for dim in many if not bool((ids == ids.narrow(dim, 0, 1)).all())]


def compact(ids: Tensor) -> Tensor:
    """The same with one entry in each dimension along which nothing changes."""
    for dim in set(range(ids.dim())) - set(varying(ids)):
        ids = ids.narrow(dim, 0, 1)
    return ids


def along(ids: Tensor, dim: int) -> Tensor:
    """The channels along a dimension, (n,)."""
    return ids.movedim(dim, 0).reshape(ids.shape[dim], -1)[:, 0].clone()


def sizes(ids: Tensor) -> tuple[Count, ...]:
    """The size of a value along each dimension."""
    many = varying(ids)
    return tuple(Count((along(ids, dim),) if dim in many else ()) for dim in range(ids.dim()))
