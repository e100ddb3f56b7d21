"""Embeddings and their low-rank form: rows of a table looked up by index, in fewer columns, and a linear layer behind them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lrp.layer.base import LowRank
from lrp.layer.clusters import Clustered
from lrp.layer.compressed import filled
from lrp.layer.kind import LayerKind
from lrp.layer.masked import Masked
from lrp.matrices import Block


class LowRankEmbedding(LowRank):
    """An Embedding (input (...) of indices, output (..., M)) from the kept components of its blocks; a column of the layer matrix is the
    vector of an index."""

    dense = nn.Embedding
    attributes = ("num_embeddings", "embedding_dim", "padding_idx", "scale_grad_by_freq")
    padding_idx: int | None
    scale_grad_by_freq: bool

    @staticmethod
    def matrix_of(dense: Any) -> Tensor:
        """The table, its vectors as columns (M, N)."""
        return dense.weight.detach().T

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M)."""
        return self._apply_rows(input, -1)

    def _columns(self, x, weight, row, start, stop, bias=None):
        if stop - start == self.columns:
            return F.embedding(x, weight.T, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)
        return looked_up(x, weight, start, stop)

    def _outer(self, inner, U, bias):
        return F.linear(inner, U, bias)

    def _thin(self, weight, bias):
        layer = nn.Embedding(weight.shape[1], len(weight), self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)
        return filled(layer, weight.T, None)

    def _pointwise(self, weight, bias):
        return filled(nn.Linear(weight.shape[1], len(weight), bias=False), weight, None)

    def _nothing(self, x, rows, bias):
        return torch.zeros(*x.shape, rows, dtype=self._example().dtype, device=x.device)

    def _weight_shape(self):
        return self.columns, self.rows

    def _dense_weight(self):
        return self.weight_matrix().T


class MaskedEmbedding(Masked):
    """An Embedding (input (...) of indices, output (..., M)) some of whose weights are zero."""

    dense = nn.Embedding
    attributes = ("num_embeddings", "embedding_dim", "padding_idx", "scale_grad_by_freq")
    padding_idx: int | None
    scale_grad_by_freq: bool
    matrix_of = staticmethod(LowRankEmbedding.matrix_of)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M)."""
        return F.embedding(input, self.weight_matrix().T, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)

    def _plain(self) -> nn.Module:
        return nn.Embedding(self.columns, self.rows, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)

    def _weight_shape(self):
        return self.columns, self.rows

    def _dense_weight(self):
        return self.weight_matrix().T


class ClusteredEmbedding(Clustered, LowRankEmbedding):
    """An Embedding (input (...) of indices, output (..., M)) whose indices lie in clusters, each with vectors of low rank."""

    own = (*Clustered.own,)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output (..., M)."""
        return self._apply_rows(self.order.index_select(0, input.flatten()).view(input.shape), -1)

    def _columns(self, x, weight, row, start, stop, bias=None):
        return looked_up(x, weight, start, stop)


class EmbeddingKind(LayerKind):
    """Embedding: the layer matrix has the vector of each index as a column, and what the layer multiplies has a one at an index and zeros
    elsewhere, so that its second moment is diagonal: how often each index comes."""

    forms = (LowRankEmbedding, MaskedEmbedding, ClusteredEmbedding)
    lookup = True
    ties = True
    feature_dim = -1

    def unsupported(self, module: Any) -> str | None:  # noqa: D102
        reason = super().unsupported(module)
        if reason is None and module.max_norm is not None:
            return "it scales its vectors as it looks them up (max_norm)"
        return "its gradients are sparse" if reason is None and module.sparse else reason

    def rows(self, module: Any) -> int:  # noqa: D102
        return module.embedding_dim

    def as_matrix(self, module: Any, value: Tensor) -> Tensor:  # noqa: D102
        return value.T

    def as_weight(self, module: Any, value: Tensor) -> Tensor:  # noqa: D102
        return value.T

    def multiplied_at(self, module: Any, positions: int, shape: tuple[int, ...]) -> int:  # noqa: D102
        return 0

    def by_example(self, x: Tensor, examples: int, positions: int) -> bool:  # noqa: D102
        return x.numel() == examples * positions

    def count(self, module: Any, x: Tensor) -> Tensor:  # noqa: D102
        return x.flatten().bincount(minlength=module.num_embeddings)

    def set_rows(self, dense: Any, rows: slice, values: Tensor) -> None:  # noqa: D102
        with torch.no_grad():
            dense.weight[:, rows].copy_(values.T)

    def inner_filters(self, module: Any, block: Block, V: Tensor) -> tuple[slice, Tensor]:  # noqa: D102
        return slice(block.col_start, block.col_stop), V

    def inner_values(self, module: Any, channels: slice | Tensor, filters: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        assert isinstance(channels, slice), "a lookup is not reordered"
        return looked_up(x, filters, channels.start, channels.stop)

    def outer_products(self, inner: Tensor, rows: Tensor) -> Tensor:  # noqa: D102
        return torch.einsum("b...r,rm->rb...m", inner, rows)

    def foldable(self, module: nn.Module) -> bool:
        """Never."""
        return False


def looked_up(x: Tensor, weight: Tensor, start: int, stop: int) -> Tensor:
    """The columns ``weight`` (r, stop - start) of the indices from ``start`` on, zeros of all others: (..., r)."""
    found = F.embedding((x - start).clamp(0, stop - start - 1), weight.T)
    return found * ((x >= start) & (x < stop))[..., None]
