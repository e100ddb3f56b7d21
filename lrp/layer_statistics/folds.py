"""Sums over a few parts of the examples, so that what is fitted to some is tried on the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lrp.group import Group
from lrp.layer_statistics.base import quadratic
from lrp.layer_statistics.few_samples import FewSamples, thin_factors
from lrp.layer_statistics.sums import Sums
from lrp.shelf import Shelf, shelved


@shelved("xx", "zx")
class Part(Sums):
    """Sums of one part, whose products may lie in a file once nothing more is added."""

    def thin(self) -> list[Tensor]:
        """Thin factors of its second moments; empty where it has too many samples."""
        xx = self.xx
        assert xx is not None, "there is something in each part"
        return thin_factors(xx, self.count)


class Folds:
    """``Sums`` of each of ``count`` parts of the examples; all samples of an example are in one part."""

    def __init__(self, count: int, inside: Tensor | None = None) -> None:
        self.parts = [Part(inside) for _ in range(count)]

    def add(self, x: Tensor, z: Tensor, where: Tensor, example: Tensor) -> None:
        """Samples x (s, groups, N), z (s, M), the positions (s,) where they are, and the examples (s,) that they are of, int64."""
        fold = example.to(x.device) % len(self.parts)
        for k, part in enumerate(self.parts):
            rows = (fold == k).nonzero()[:, 0]
            if len(rows):
                part.add(x[rows], z[rows], where[rows])

    def sum_up(self) -> None:
        """Everything that was added is in the sums."""
        for part in self.parts:
            part.sum_up()

    def flush(self) -> Folds:
        """Everything that was added is in the sums, and the products of all parts, which are several times the layer, in a file."""
        shelf = Shelf()
        self.sum_up()
        self.parts = [part for part in self.parts if part.count]
        for part in self.parts:
            assert part.xx is not None and part.zx is not None, "z was added with x"
            part.xx, part.zx = shelf.put(part.xx), shelf.put(part.zx)
        return self

    def total(self, group: Group) -> Folds:
        """The same over all processes of a group, whose examples have their places in all of them."""
        for part in self.parts if group.size > 1 else ():
            part.hold(*group.total(part.held()))
        return self.flush()

    def without(self, fold: int | None = None) -> Sums:
        """The sums over all parts but one; None: over all."""
        result = Sums()
        for k, part in enumerate(self.parts):
            if k != fold:
                result.count += part.count
                for name in ("x", "z", "xx", "zx"):
                    sum_ = getattr(result, name)
                    setattr(result, name, getattr(part, name).clone() if sum_ is None else sum_.add_(getattr(part, name)))
        return result


def held_out(span: slice | Tensor, weight: Tensor, bias: Tensor, sums: Sums, G: Tensor | None, thin: Sequence[Tensor] = ()) -> float:
    """The sum over the samples of ||z - W x - b||_G^2 of the rows ``span`` of a layer, all of one group, but for what no W and b changes.

    ``weight`` (p, N) and ``bias`` (p,) are those rows of W and b; ``G`` (p, p) is the rows' part of the metric, None: the identity.
    ``thin`` are the factors of the sums' second moments, which are not read then.
    """
    assert sums.x is not None and sums.z is not None, "z was added with x"
    first = span.start if isinstance(span, slice) else int(span[0])
    group = first * len(sums.x) // len(sums.z)
    x, z = sums.x[group], sums.z[span]
    zx = sums.zx
    if thin:
        crossed = quadratic(weight, FewSamples(thin[group]))
    else:
        xx = sums.xx
        assert xx is not None, "z was added with x"
        crossed = quadratic(weight, xx[group])
        del xx
    assert zx is not None, "z was added with x"
    crossed.addmm_(zx[span], weight.T, alpha=-2)
    crossed.addr_(bias, sums.count * bias - 2 * z + 2 * (weight @ x))
    return float(crossed.trace() if G is None else torch.vdot(G.reshape(-1), crossed.view(-1)))  # G is symmetric
