"""torch's MultiheadAttention with its four matrices as Linear layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from lrp.standin.base import StandIn, as_parameter, is_usual, linear

PARAMETERS = ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight", "bias_k", "bias_v")


class Attention(nn.Module):
    """Attention of ``num_heads`` heads over embeddings of E features, called as torch's is: query (L, B, E), key (S, B, kdim) and value
    (S, B, vdim), or batch first, or without B.

    Its forward has no branch on a value or a number of dimensions where no mask is given: torch.fx can look into it.
    """

    def __init__(self, dense: Any) -> None:
        super().__init__()
        E, bias = dense.embed_dim, dense.in_proj_bias
        joined = dense.in_proj_weight
        q, k, v = (dense.q_proj_weight, dense.k_proj_weight, dense.v_proj_weight) if joined is None else joined.split(E)
        b_q, b_k, b_v = (None, None, None) if bias is None else bias.split(E)
        self.q_proj, self.k_proj, self.v_proj = linear(q, b_q), linear(k, b_k), linear(v, b_v)
        self.out_proj = linear(dense.out_proj.weight, dense.out_proj.bias)
        self.bias_k = None if dense.bias_k is None else as_parameter(dense.bias_k)
        self.bias_v = None if dense.bias_v is None else as_parameter(dense.bias_v)
        self.num_heads: int = dense.num_heads
        self.dropout: float = dense.dropout
        self.batch_first: bool = dense.batch_first
        self.add_zero_attn: bool = dense.add_zero_attn
        self._qkv_same_embed_dim = False  # what torch's encoder layers ask before they read the weights themselves

    @property
    def in_proj_weight(self) -> Tensor:
        """The three weights as one (3 E, E), for code that looks at it."""
        weights: list[Tensor] = [self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]
        return torch.cat(weights)

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The three biases as one (3 E,); None without them."""
        biases: list[Any] = [layer.bias for layer in (self.q_proj, self.k_proj, self.v_proj)]
        return None if any(bias is None for bias in biases) else torch.cat(biases)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output, shaped as ``query``, and the weights (B, L, S) or (B, heads, L, S); None where they are not asked for.

        Raises:
            RuntimeError: For ``is_causal`` without ``attn_mask``, as torch does.
            ValueError: For nested tensors with a mask.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        if isinstance(query, Tensor) and query.is_nested:
            if key_padding_mask is not None or attn_mask is not None:
                raise ValueError("nested tensors say themselves where they end: give no mask with them")
            return self._nested(query, key, value, need_weights, average_attn_weights)
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if attn_mask is None or causal else _added(attn_mask, query.dtype)
        q, k, v = self._heads(self.q_proj(query)), self._heads(self.k_proj(key)), self._heads(self.v_proj(value))
        if mask is not None and mask.dim() == 3 and q.dim() == 4:
            mask = mask.unflatten(0, (-1, self.num_heads))
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, query.dtype).unsqueeze(-2).unsqueeze(-2)
            mask = padding if mask is None else mask + padding
        more = []
        if self.bias_k is not None and self.bias_v is not None:
            more.append((self.bias_k.view(self.num_heads, 1, -1), self.bias_v.view(self.num_heads, 1, -1)))
        if self.add_zero_attn:
            more.append((k.new_zeros(1, 1, 1), v.new_zeros(1, 1, 1)))
        for key_more, value_more in more:
            k = torch.cat([k, key_more.expand(*k.shape[:-2], 1, k.shape[-1])], -2)
            v = torch.cat([v, value_more.expand(*v.shape[:-2], 1, v.shape[-1])], -2)
            mask = None if mask is None else F.pad(mask, (0, 1))
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return self.out_proj(self._joined(F.scaled_dot_product_attention(q, k, v, mask, dropout, causal))), None
        scores = (q * math.sqrt(1 / (self.q_proj.out_features // self.num_heads))) @ k.transpose(-2, -1)
        weights = (scores if mask is None else scores + mask).softmax(-1)
        weights = F.dropout(weights, dropout) if dropout > 0 else weights
        output = self.out_proj(self._joined(weights @ v))
        return output, weights.mean(-3) if average_attn_weights else weights

    def _heads(self, x: Tensor) -> Tensor:
        """(L, B, E), or (B, L, E), as (B, heads, L, E of a head); without B where there is none."""
        parts = x.unflatten(-1, (self.num_heads, -1))
        return parts.transpose(-3, -2) if self.batch_first else parts.movedim(0, -2)

    def _joined(self, x: Tensor) -> Tensor:
        """The way back."""
        return (x.transpose(-3, -2) if self.batch_first else x.movedim(-2, 0)).flatten(-2)

    def _nested(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool, average: bool) -> tuple[Tensor, Tensor | None]:
        """Of nested tensors, as of padded ones, and nested again."""
        lengths = [len(example) for example in query.unbind()]
        sources = query.new_tensor([len(example) for example in key.unbind()])
        padded = [torch.nested.to_padded_tensor(x, 0.0) for x in (query, key, value)]
        ends = torch.arange(padded[1].shape[1], device=query.device) >= sources[:, None]
        output, weights = self(*padded, key_padding_mask=ends, need_weights=need_weights, average_attn_weights=average)
        return torch.nested.as_nested_tensor([row[:length] for row, length in zip(output, lengths, strict=True)]), weights


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What a mask adds to the scores."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf) if mask.dtype == torch.bool else mask


class MultiheadAttention(StandIn):
    """Query, key and value are a matrix each, although torch stores them as one: their ranks differ."""

    name = "MultiheadAttention"

    def stands_for(self, module: nn.Module) -> bool:  # noqa: D102
        if type(module) is not nn.MultiheadAttention or not is_usual(module, *PARAMETERS) and not is_usual(module, *PARAMETERS[:-2]):
            return False
        out = module.out_proj
        return type(out) is NonDynamicallyQuantizableLinear and is_usual(out, "weight", "bias")

    def make(self, module: Any) -> nn.Module:  # noqa: D102
        return Attention(module)
