"""Which positions of a layer are looked at, and what it reads and gives there."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrp.inputs import numbers
from lrp.layer.build import kind_of

SMALL_MAP = 64  # positions


@dataclass(frozen=True)
class Positions:
    """Which positions of a layer's output are looked at: as many per image as make ``samples`` of all images, at least one, drawn at
    random without replacement, the same for every network that is compared.

    Attributes:
        counts: How many positions each layer has for one image, by its name.
        images: How many images there are.
        samples: How many positions of a layer are looked at, in all images together.
    """

    counts: Mapping[str, int]
    images: int
    samples: int

    def of(self, name: str, counted: Tensor | None = None) -> Tensor:
        """(images, P) int64; first those that count of a layer that has a position for each token of ``counted`` (images, L) bool."""
        count, most = self.counts[name], -(-self.samples // self.images)
        if count <= most:
            return torch.arange(count).expand(self.images, count)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        if counted is None or counted.shape[1] != count:
            return torch.rand(self.images, count, generator=generator).topk(most, dim=1).indices
        drawn = torch.rand(count, self.images, generator=generator).T  # by token, so that padding does not change what is drawn
        return torch.where(counted.cpu(), drawn.gather(1, numbers(counted.cpu())), -1).topk(most, dim=1).indices

    def share(self, name: str, counted: Tensor | None = None) -> float:
        """Which share of a layer's positions is looked at, of a layer that has one for each token of those that count."""
        count: float = self.counts[name]
        if counted is not None and counted.shape[1] == count:
            count = max(1, int(counted.sum())) / self.images
        return min(1.0, -(-self.samples // self.images) / count)


def kept(counted: Tensor | None, where: Tensor, positions: int, x: Tensor) -> Tensor | None:
    """Which of the rows at ``where`` (B, P) count, (B * P,) bool; None: all do, or the layer's ``positions`` are not the tokens of
    ``counted`` (B, L). A layer's input ``x`` may run over the tokens first."""
    if counted is None or counted.shape[1] != positions:
        return None
    if x.dim() > 2 and x.shape[:2] == counted.T.shape != counted.shape:
        counted = counted.T.reshape(counted.shape)
    return counted[torch.arange(len(where), device=counted.device)[:, None], where.to(counted.device)].flatten()


def batch_size(most: int, counted: Tensor | None, examples: int) -> int:
    """How many of so many examples to look at at once, ``most`` or a half, a quarter, ... of it: as many as none of them has tokens in
    ``counted`` (B, L), or values that run over tokens first could not be told from those that run over examples first."""
    while counted is not None and most > 1 and counted.shape[1] in (most, examples % most):
        most //= 2
    return most


def columns(module: nn.Module, x: Tensor, where: Tensor) -> Tensor:
    """What a layer multiplies at these positions (B, P) of its output: (B * P, groups, N), N channel-major as in its matrix."""
    return kind_of(module).columns(module, x, where)


def outputs(module: nn.Module, z: Tensor, where: Tensor) -> Tensor:
    """A layer's outputs at these positions (B, P): (B * P, M)."""
    features = kind_of(module).features_last(z)
    flat = features.reshape(len(where), -1, features.shape[-1])
    return flat[torch.arange(len(where), device=z.device)[:, None], where.to(z.device)].reshape(where.numel(), -1)


def kept_rows(counted: Tensor, x: Tensor, rows: int) -> Tensor | None:
    """Which of the rows of a call that reads ``x`` count, (rows,) bool; None: all do, or the rows are not the tokens of ``counted`` (B, L),
    nor the places (L,) that all examples share."""
    if rows != counted.numel():
        return counted.any(0).to(x.device) if rows == counted.shape[1] else None
    first = x.dim() > 1 and x.shape[:2] == counted.T.shape != counted.shape
    return (counted.T if first else counted).flatten().to(x.device)


def scattered(
    module: nn.Module, x: Tensor, z: Tensor, share: float, generator: torch.Generator, keep: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """About this share, at least one, of the positions at which a layer computed ``z`` from ``x``, drawn at random, where they count by
    ``keep`` (rows,): of ``x`` and ``z`` the parts that hold them, each by itself, and where in these parts they are (B, P)."""
    kind = kind_of(module)
    x, z = kind.apart(module, x), kind.apart(module, z)
    if keep is not None and len(x) == len(keep):
        x, z = x[keep], z[keep]
    if not len(x):
        return x, z, torch.zeros(0, 1).long()
    parts, each = len(x), kind.positions(module, z) // len(x)
    drawn = max(1, round(share * parts * each))
    if drawn < parts:
        chosen = torch.randperm(parts, generator=generator)[:drawn].to(x.device)
        x, z = x[chosen], z[chosen]
    most = max(1, -(-drawn // parts))
    where = (
        torch.rand(len(x), each, generator=generator).topk(min(most, each), dim=1).indices if each > 1 else torch.zeros(len(x), 1).long()
    )
    return x, z, where


def inside(module: nn.Module, x: Tensor, positions: int) -> Tensor | None:
    """Which of a layer's columns read its input ``x`` (B, ...) rather than zeros around it, at each position: (positions, N) bool,
    the same in all groups; None for a map so large that its edges hardly count and for layers that read no zeros around."""
    if positions > SMALL_MAP or not kind_of(module).reads_around:
        return None
    read = columns(module, torch.ones_like(x[:1]), torch.arange(positions)[None])
    return read[:, 0] != 0
