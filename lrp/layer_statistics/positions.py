"""Which positions of a layer are looked at, and what it reads and gives there."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.base import LowRank
from lrp.layer.linear import LowRankLinear

SMALL_MAP = 64  # positions


@dataclass(frozen=True)
class Positions:
    """Which positions of a layer's output are looked at: as many an image as make ``samples`` of all images, at least one, drawn at
    random without replacement, the same for every network that is compared. ``counts``: of each layer the positions it has for
    one image."""

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
    each = torch.arange(len(x), device=x.device)[:, None]
    where = where.to(x.device)
    if isinstance(module, (nn.Linear, LowRankLinear)):
        return x.reshape(len(x), -1, x.shape[-1])[each, where].reshape(-1, 1, x.shape[-1])
    around = module._around if isinstance(module, LowRank) else module._reversed_padding_repeated_twice
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, around, mode=mode) if any(around) else x
    dims = len(module.kernel_size)
    sizes = [(x.shape[2 + d] - module.dilation[d] * (module.kernel_size[d] - 1) - 1) // module.stride[d] + 1 for d in range(dims)]
    strides = x.stride()
    windows = x.as_strided(
        (len(x), *sizes, x.shape[1], *module.kernel_size),
        (
            strides[0],
            *(strides[2 + d] * module.stride[d] for d in range(dims)),
            strides[1],
            *(strides[2 + d] * module.dilation[d] for d in range(dims)),
        ),
        x.storage_offset(),
    )
    return windows[(each, *torch.unravel_index(where, sizes))].reshape(where.numel(), module.groups, -1)


def outputs(module: nn.Module, z: Tensor, where: Tensor) -> Tensor:
    """A layer's outputs at these positions (B, P): (B * P, M)."""
    flat = z.reshape(len(z), -1, z.shape[-1]) if isinstance(module, nn.Linear) else z.flatten(2).transpose(1, 2)
    return flat[torch.arange(len(z), device=z.device)[:, None], where.to(z.device)].reshape(where.numel(), -1)


def inside(module: nn.Module, x: Tensor, positions: int) -> Tensor | None:
    """Which of a layer's columns read its input ``x`` (B, ...) rather than zeros around it, at each position: (positions, N) bool,
    the same in all groups; None for a map so large that its edges hardly count."""
    if positions > SMALL_MAP:
        return None
    read = columns(module, torch.ones_like(x[:1]), torch.arange(positions)[None])
    return read[:, 0] != 0
