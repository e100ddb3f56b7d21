"""Sums of products over samples, in single and then in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from lrp.group import Group
from lrp.network.arithmetic import plain_arithmetic

PANEL = 512  # columns of a second moment that are found at once
ROWS = 8192  # samples that are summed in single precision before they join a sum in double
WORTHWHILE = 0.7  # share of the products that have to be computed, below which picking out columns takes less time than it saves


def gram(x: Tensor) -> Tensor:
    """x^T x of each group (groups, s, N), which is symmetric: a wide one by its upper panels alone, in little over half the time."""
    N = x.shape[2]
    if N < 4 * PANEL:
        return x.mT @ x
    result = x.new_empty(len(x), N, N)
    for start in range(0, N, PANEL):
        panel = slice(start, start + PANEL)
        part = x[:, :, panel].mT @ x[:, :, start:]
        result[:, panel, start:] = part
        result[:, start:, panel] = part.mT
    return result


class Sums:
    """Sums over samples of x x^T (groups, N, N), z x^T (M, N; a group's rows with its own x), x and z.

    Products are summed over some thousand samples in single precision and then in double. ``inside`` (positions, N): on small maps
    most of what the positions at the edge read are the zeros around, and their products are left out.
    """

    def __init__(self, inside: Tensor | None = None) -> None:
        self.count = 0
        self.xx: Tensor | None = None
        self.zx: Tensor | None = None
        self.x: Tensor | None = None
        self.z: Tensor | None = None
        self._waiting: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
        self._rows = 0
        self._kind = None
        if inside is not None and float(inside.double().mean(1).square().mean()) < WORTHWHILE:
            self._patterns, self._kind = inside.unique(dim=0, return_inverse=True)

    @classmethod
    def of_moments(cls, C: Tensor, mean: Tensor, weight: Tensor, bias: Tensor | None) -> Sums:
        """The sums over one sample whose moments are C (groups, N, N) and ``mean`` (groups, N), and which a layer of this ``weight`` (M, N)
        and ``bias`` (M,) reads: what it gives follows."""
        result, parts = cls(), weight.to(C).chunk(len(C))
        b = torch.zeros(len(weight)).to(C) if bias is None else bias.detach().to(C)
        result.count, result.xx, result.x = 1, C.clone(), mean
        result.z = torch.cat([part @ m for part, m in zip(parts, mean)]) + b
        groups = zip(parts, C, mean, b.chunk(len(C)))
        result.zx = torch.cat([part @ c + shift[:, None] * m for part, c, m, shift in groups])
        return result

    def add(self, x: Tensor, z: Tensor | None = None, where: Tensor | None = None) -> None:
        """Samples x (s, groups, N), z (s, M) and, needed with ``inside``, the positions (s,) where they are."""
        kind = torch.promote_types(x.dtype, torch.float32)  # half precision holds no sums
        self._waiting.append((x.to(kind), None if z is None else z.to(kind), where))
        self._rows += len(x)
        if self._rows >= (ROWS if self._kind is None else ROWS * min(len(self._patterns), 4)):
            self.flush()

    def held(self) -> list[Tensor | None]:
        """What was added up so far: the count and the sums; None of what there is nothing."""
        self.flush()
        return [torch.tensor(float(self.count), dtype=torch.float64), self.xx, self.zx, self.x, self.z]

    def hold(self, count: Tensor | None, *sums: Tensor | None) -> None:
        """Take what ``held`` gave, added up over several."""
        self.count = 0 if count is None else round(float(count))
        self.xx, self.zx, self.x, self.z = sums

    def total(self, group: Group) -> Sums:
        """The same over all processes of a group."""
        if group.size > 1:
            self.hold(*group.total(self.held()))
        return self.flush()

    def flush(self) -> Sums:
        """Everything that was added is in the sums."""
        self.sum_up()
        return self

    def sum_up(self) -> None:
        """Everything that was added is in the sums."""
        if not self._waiting:
            return
        xs, zs, places = zip(*self._waiting)
        self._waiting, self._rows = [], 0
        self.count += sum(map(len, xs))
        self._sum("x", cast(Tensor, sum(x.double().sum(0) for x in xs)))
        if zs[0] is not None:
            self._sum("z", cast(Tensor, sum(z.double().sum(0) for z in zs)))
        with plain_arithmetic(xs[0].device):
            if self._kind is None:
                self._products(xs, zs, slice(None))
                return
            kinds = [self._kind[where.to(self._kind.device)] for where in places]
            for k, pattern in enumerate(self._patterns):
                rows = [(kind == k).nonzero()[:, 0] for kind in kinds]
                read = pattern.nonzero()[:, 0]
                parts = [x[at][:, :, read] for x, at in zip(xs, rows)]
                self._products(parts, [None if z is None else z[at] for z, at in zip(zs, rows)], read)

    def _products(self, xs: Sequence[Tensor], zs: Sequence[Tensor | None], read: Any) -> None:
        x = (xs[0].contiguous() if len(xs) == 1 else torch.cat(tuple(xs))).transpose(0, 1)  # (groups, s, N)
        self._sum("xx", gram(x), read)
        if zs[0] is not None:
            parts = torch.cat([z for z in zs if z is not None]).unflatten(1, (len(x), -1)).transpose(0, 1)  # (groups, s, M of the group)
            self._sum("zx", (parts.mT @ x).flatten(0, 1), read)

    def _sum(self, name: str, value: Tensor, read: Any = slice(None)) -> None:
        """Add to a sum; of products only to the columns ``read``."""
        before = getattr(self, name)
        if isinstance(read, slice):
            setattr(self, name, value.double() if before is None else before.add_(value))
            return
        if before is None:
            N = len(self._patterns[0])
            before = torch.zeros(*value.shape[:-2], N if name == "xx" else value.shape[-2], N, dtype=torch.float64, device=value.device)
            setattr(self, name, before)
        if name == "xx":
            before[:, read[:, None], read] += value
        else:
            before[:, read] += value
