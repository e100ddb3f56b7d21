"""torchvision's attention in shifted windows (Swin) with a forward that calls its two Linear layers; windows.py says when it is loaded."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

FAR = -100.0  # what torchvision adds where two places of a window are not neighbours


def _shifts(height: int, width: int, window: list[int], shift: list[int]) -> tuple[int, int, int, int]:
    """Of a map of this size: the size that whole windows need, and by how much it is shifted: not at all where one window holds it."""
    high, wide = (-(-size // step) * step for size, step in zip((height, width), window))
    return high, wide, 0 if window[0] >= high else shift[0], 0 if window[1] >= wide else shift[1]


@fx.wrap
def windows_of(x: Tensor, window: list[int], shift: list[int]) -> Tensor:
    """A map (B, H, W, C), shifted, in windows: (B * windows, places, C)."""
    _, height, width, channels = x.shape
    high, wide, down, right = _shifts(height, width, window, shift)
    x = F.pad(x, (0, 0, 0, wide - width, 0, high - height)).roll((-down, -right), (1, 2))
    x = x.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))  # (B, rows, window, columns, window, C)
    return x.transpose(2, 3).reshape(-1, window[0] * window[1], channels)


@fx.wrap
def joined(windows: Tensor, x: Tensor, window: list[int], shift: list[int]) -> Tensor:
    """Windows as a map of the size of ``x`` (B, H, W, C), shifted back."""
    _, height, width, _ = x.shape
    high, wide, down, right = _shifts(height, width, window, shift)
    grid = windows.view(-1, high // window[0], wide // window[1], window[0], window[1], windows.shape[-1])
    return grid.transpose(2, 3).flatten(3, 4).flatten(1, 2).roll((down, right), (1, 2))[:, :height, :width].contiguous()


@fx.wrap
def attended(
    qkv: Tensor, x: Tensor, bias: Tensor, window: list[int], shift: list[int], heads: int, scale: Tensor | None, dropout: float
) -> Tensor:
    """Attention inside windows, (B * windows, places, C); ``scale`` (heads, 1, 1): of the cosines, in their logarithm."""
    q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    if scale is None:
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
    else:
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * scale.clamp(max=math.log(100.0)).exp()
    scores = scores + bias
    high, wide, down, right = _shifts(x.shape[1], x.shape[2], window, shift)
    if down or right:
        parts = [_parts(size, step, by, x) for size, step, by in zip((high, wide), window, (down, right))]
        region = windows_of((3 * parts[0][:, None] + parts[1])[None, :, :, None], window, [0, 0])  # (windows, places, 1)
        apart = torch.where(region != region.mT, FAR, 0.0).to(scores)
        scores = (scores.unflatten(0, (-1, len(region))) + apart[:, None]).flatten(0, 1)
    weights = F.dropout(scores.softmax(-1), dropout, dropout > 0)
    return (weights @ v).transpose(1, 2).flatten(2)


def _parts(size: int, step: int, by: int, like: Tensor) -> Tensor:
    """Along one side of a shifted map: 0 before the last window, 1 in what belongs to it, 2 in what was shifted in from the other end."""
    at = torch.arange(size, device=like.device)
    return (at >= size - step).long() + (at >= size - by).long() * (by > 0)


class _Calls:
    """The forward that calls ``qkv`` and ``proj``."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        where = list(self.window_size), list(self.shift_size)
        qkv = self.qkv(windows_of(x, *where))
        dropout = self.attention_dropout if self.training else 0.0
        y = attended(qkv, x, self.get_relative_position_bias(), *where, self.num_heads, self.logit_scale, dropout)
        return joined(F.dropout(self.proj(y), self.dropout, self.training), x, *where)


class Windows(_Calls, ShiftedWindowAttention):
    """Of Swin."""

    logit_scale = None


class WindowsV2(_Calls, ShiftedWindowAttentionV2):
    """Of Swin V2."""


OF = {ShiftedWindowAttention: Windows, ShiftedWindowAttentionV2: WindowsV2}
