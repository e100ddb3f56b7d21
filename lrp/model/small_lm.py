"""A small language model, which trains on a CPU in minutes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.errors import InputError, check_int


class _Block(nn.Module):
    """Attention to what came before, and two layers at each place (Radford et al., 2019: norms first)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_a, self.norm_b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to the same."""
        h = self.norm_a(x)
        q, k, v = (layer(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_b(x))))


class SmallLM(nn.Module):
    """A decoder of ``layers`` blocks with learned places. Input: tokens (B, T), T at most ``length``; output: logits (B, T, num_classes) of
    the token that follows at each place."""

    def __init__(self, num_classes: int = 256, width: int = 128, layers: int = 4, heads: int = 4, length: int = 256) -> None:
        for name, value in (("num_classes", num_classes), ("width", width), ("layers", layers), ("heads", heads), ("length", length)):
            check_int(f"model.{name}", value, 1)
        if width % heads:
            raise InputError("model.heads", heads, f"must divide model.width={width}")
        super().__init__()
        self.tokens, self.places = nn.Embedding(num_classes, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_classes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """As the class says."""
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
