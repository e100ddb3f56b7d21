"""Which positions of a layer are looked at, and what it reads and gives there."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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

    def of(self, name: str) -> Tensor:
        """(images, P) int64."""
        count, most = self.counts[name], -(-self.samples // self.images)
        if count <= most:
            return torch.arange(count).expand(self.images, count)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        return torch.rand(self.images, count, generator=generator).topk(most, dim=1).indices


def columns(module: nn.Module, x: Tensor, where: Tensor) -> Tensor:
    """What a layer multiplies at these positions (B, P) of its output: (B * P, groups, N), N channel-major as in its matrix."""
    return kind_of(module).columns(module, x, where)


def outputs(module: nn.Module, z: Tensor, where: Tensor) -> Tensor:
    """A layer's outputs at these positions (B, P): (B * P, M)."""
    features = kind_of(module).features_last(z)
    flat = features.reshape(len(where), -1, features.shape[-1])
    return flat[torch.arange(len(where), device=z.device)[:, None], where.to(z.device)].reshape(where.numel(), -1)


def scattered(module: nn.Module, x: Tensor, z: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """About this share, at least one, of the positions at which a layer computed ``z`` from ``x``, drawn at random: of ``x`` and ``z`` the
    parts that hold them, each by itself, and where in these parts they are (B, P)."""
    kind = kind_of(module)
    x, z = kind.apart(module, x), kind.apart(module, z)
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
