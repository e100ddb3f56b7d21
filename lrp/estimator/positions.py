"""Layers' values and gradients by image and position, and their products with components."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lrp.errors import NotUsable
from lrp.layer.kind import LayerKind

NOT_BY_IMAGE = "no dimension of its values runs over the images alone"
BUFFER_BYTES = 16 * 2**20  # of one product, so that it is summed while still in a CPU's caches


def positions_of(value: Tensor, kind: LayerKind, images: int, dim: int = 0, layer: str = "") -> Tensor:
    """A layer's values as (B, positions, features); dimension ``dim`` of them runs over the images.

    Raises:
        NotUsable: Where it does not.
    """
    features = kind.features_last(value.movedim(dim, 0))
    if len(features) % images:
        raise NotUsable({layer: NOT_BY_IMAGE}, "estimator=exact can score it")
    return features.reshape(images, -1, features.shape[-1])


def squares_of_rows(grad: Tensor, inner: Tensor, U: Tensor, rows: slice | Tensor, kind: LayerKind) -> Tensor:
    """(R,): the squares of g U z of every row, added up; g the ``rows`` of a layer's gradients, z what its components read."""
    g, z = (features.reshape(-1, features.shape[-1]).to(U) for features in map(kind.features_last, (grad, inner)))
    return (g[:, rows] @ U).mul_(z).square_().sum(0)


def batch_dim(grads: Sequence[Tensor | None], kind: LayerKind) -> int | None:
    """Which dimension of a layer's output runs over two images, by its gradients by each image's output alone; None: none does.

    A first dimension that holds several positions of each image counts as well. Both gradients are looked at: where tokens come first
    and the network's output reads some of them, or some are padding, that by one image may be zero in half of the tokens."""
    known = [grad for grad in grads if grad is not None]
    if not known:
        return 0
    for dim in range(known[0].dim() - 1 if kind.feature_dim == -1 else 1):
        size = known[0].shape[dim]
        if (size == 2 or dim == 0 and size % 2 == 0) and not any(
            grad is not None and bool(positions_of(grad, kind, 2, dim)[1 - own].any()) for own, grad in enumerate(grads)
        ):
            return dim
    return None


def precise(value: Tensor) -> torch.dtype:
    """The precision in which products with a tensor are summed: single at least."""
    return torch.promote_types(value.dtype, torch.float32)


def contract_rows(g: Tensor, z: Tensor, U: Tensor, buffer: Tensor) -> Tensor:
    """sum over positions p and rows m of g (B, P, M) U (M, R) z (B, P, R), as (B, R), by whichever order writes less."""
    (images, P, M), R = g.shape, z.shape[2]
    chunk = max(1, len(buffer) // (min(P, M) * R))
    if min(P, M) * R > len(buffer):
        buffer = buffer.new_empty(min(P, M) * R)
    result = []
    for start in range(0, images, chunk):
        part, inner = g[start : start + chunk], z[start : start + chunk]
        space = buffer[: len(part) * min(P, M) * R]
        if P <= M:
            product = torch.mm(part.reshape(-1, M), U, out=space.view(-1, R)).view(len(part), P, R)
            result.append(product.mul_(inner).sum(1))
        else:
            product = torch.bmm(inner.transpose(1, 2), part, out=space.view(len(part), R, M))
            result.append(product.mul_(U.T).sum(2))
    return torch.cat(result)
