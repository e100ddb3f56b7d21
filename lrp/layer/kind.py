"""What lrp has to know of a kind of layer: a file in this folder says it once, and every other part asks it here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lrp.layer.base import LowRank
from lrp.layer.carry import not_carried
from lrp.layer.compressed import Compressed
from lrp.matrices import Block, LayerMatrix, Rank

COMPUTED = "its weight is computed from other parameters"
RUNNING = ("forward", "_conv_forward")  # what of a layer runs


class LayerKind:
    """One kind of layer (M outputs, N inputs of a row), of which every network holds any number. A module that is passed is of
    this kind: a dense one of torch, a subclass of it, or a compressed form of it.

    Attributes:
        forms: Compressed layers, each of one form and in place of one type of torch.
        uncompressed: Types of torch whose batch norms are folded and whose multiply-accumulates are counted, nothing else.
        reads_around: Whether a layer reads zeros around its input.
        sized: Whether it can be asked for an output of another size than its own.
        lookup: Whether its input holds indices of columns of its matrix, which it gives, rather than numbers that it multiplies.
        ties: Whether layers that hold one weight can be compressed together.
        feature_dim: The dimension of the layer's output (B, ...) that runs over its M features.
    """

    forms: ClassVar[tuple[type[Compressed], ...]]
    uncompressed: ClassVar[tuple[type[nn.Module], ...]] = ()
    reads_around: ClassVar[bool] = False
    sized: ClassVar[bool] = False
    lookup: ClassVar[bool] = False
    ties: ClassVar[bool] = False
    feature_dim: ClassVar[int]

    @property
    def dense_types(self) -> tuple[type[nn.Module], ...]:
        """The types of torch that are of this kind."""
        return (*dict.fromkeys(form.dense for form in self.forms), *self.uncompressed)

    def owns(self, module: Any) -> bool:
        """Whether a module is of this kind."""
        return isinstance(module, (*self.dense_types, *self.forms))

    def form(self, dense: nn.Module, name: str = "matrix") -> type[Compressed] | None:
        """The form of this name of a dense layer; None of a type without one, which a subclass is: it may compute something else."""
        return next((form for form in self.forms if type(dense) is form.dense and form.form == name), None)

    def unsupported(self, module: nn.Module) -> str | None:
        """Why a module cannot be compressed; None where it can."""
        form = self.form(module)
        if is_parametrized(module, "weight"):
            return COMPUTED
        if form is None:
            parent = next((dense for dense in self.dense_types if isinstance(module, dense) and type(module) is not dense), None)
            if parent is not None and any(_method(type(module), name) is not _method(parent, name) for name in RUNNING):
                return f"a subclass of {parent.__name__} with a forward of its own ({type(module).__name__})"
            return f"type not supported ({type(module).__name__})"
        taken = {name for other in self.forms for name in other.own}
        return not_carried(module, form, taken) if _has_own_weight(module) else COMPUTED

    def low_rank(self, dense: nn.Module, blocks: Sequence[tuple[Block, Rank]]) -> LowRank:
        """The low-rank form of a dense layer that can be compressed, its ``blocks`` at these ranks, without values."""
        form = self.form(dense, "matrix" if blocks[0][0].order is None else "permuted")
        assert form is not None and issubclass(form, LowRank)
        return form(dense, blocks)

    def twin(self, dense: Any, layer: LowRank) -> LowRank:
        """The low-rank form of a dense layer that holds the weight of another one, in whose place ``layer`` is: it holds the factors of
        ``layer``, the same parameters, and the bias of ``dense``."""
        made = type(layer)(dense, layer.blocks)
        made.share(layer, dense)
        return made

    def rows(self, module: Any) -> int:
        """M."""
        return module.rows if isinstance(module, Compressed) else module.weight.shape[0]

    def matrix(self, name: str, dense: Any) -> LayerMatrix:
        """The weight of a dense layer that can be compressed."""
        form = self.form(dense)
        assert form is not None
        matrix, groups = form.matrix_of(dense), getattr(dense, "groups", 1)
        size, reorders = tuple(getattr(dense, "kernel_size", ())), groups == 1 and self.form(dense, "permuted") is not None
        return LayerMatrix(name, matrix, math.prod(size), groups, self.lookup, reorders=reorders, kernel_size=size)

    @torch.no_grad()
    def set_rows(self, dense: Any, rows: slice, values: Tensor) -> None:
        """Write ``values`` (rows, N) into these rows of a dense layer's matrix."""
        part = dense.weight[rows]
        part.copy_(values.view_as(part))

    def as_matrix(self, module: Any, value: Tensor) -> Tensor:
        """A value of the shape of a dense layer's weight, as (M, N)."""
        return value.flatten(1)

    def as_weight(self, module: Any, matrix: Tensor) -> Tensor:
        """A matrix (M, N) in the shape of a dense layer's weight."""
        return matrix.view_as(module.weight)

    def multiplied_at(self, module: Any, positions: int, shape: tuple[int, ...]) -> int:
        """At how many positions of an example the weight is multiplied, of a layer that gives an output at so many ``positions`` and reads
        an input of this shape (1, ...)."""
        return positions

    def features_last(self, output: Tensor) -> Tensor:
        """The layer's output, or a gradient of its shape, as (B, ..., M)."""
        return output.movedim(self.feature_dim, -1)

    def positions(self, module: nn.Module, output: Tensor) -> int:
        """At how many positions a layer computed this output."""
        return output.numel() // self.rows(module)

    def by_example(self, x: Tensor, examples: int, positions: int) -> bool:
        """Whether what a layer reads for so many examples, each at so many positions, can be told apart by position."""
        return len(x) == examples

    def apart(self, module: Any, value: Tensor) -> Tensor:
        """What a layer reads or gives, its first dimension over parts that it treats one by one."""
        return value

    def count(self, module: Any, x: Tensor) -> Tensor:
        """Of a lookup how often each index comes in what it reads, (N,) int64."""
        raise NotImplementedError

    def columns(self, module: Any, x: Tensor, where: Tensor) -> Tensor:
        """What a layer multiplies at these positions (B, P) of its output: (B * P, groups, N), N channel-major as in its matrix."""
        raise NotImplementedError

    def inner_filters(self, module: Any, block: Block, V: Tensor) -> tuple[slice | Tensor, Tensor]:
        """The rows of ``V`` (R, N of the block) in the shape of the layer's own weight, and the input channels that they read."""
        raise NotImplementedError

    def inner_values(self, module: Any, channels: slice | Tensor, filters: Tensor, x: Tensor) -> Tensor:
        """v_i . x, v_i a row of V, at every position, shaped as the layer's output with R features in place of M."""
        raise NotImplementedError

    def outer_products(self, inner: Tensor, rows: Tensor) -> Tensor:
        """u_i (v_i . x) from the ``inner_values`` (B, ...) of R components and u_i as ``rows`` (R, M): (R, B, ...), each shaped as
        the layer's output."""
        raise NotImplementedError

    def foldable(self, module: nn.Module) -> bool:
        """Whether a batch norm behind the layer can be folded into it."""
        return isinstance(module, Compressed) or type(module) in self.dense_types and _has_own_weight(module)

    @torch.no_grad()
    def scale_rows(self, module: Any, scale: Tensor, shift: Tensor) -> None:
        """Make the layer's output scale * output + shift, both (M,)."""
        if isinstance(module, Compressed):
            module.scale_rows(scale, shift)
            return
        module.weight.mul_(scale.view(-1, *[1] * (module.weight.dim() - 1)))
        bias = shift if module.bias is None else module.bias * scale + shift
        module.bias = nn.Parameter(bias.to(module.weight), requires_grad=module.weight.requires_grad)

    def folded_for_scoring(self, module: nn.Module, norm: nn.Module) -> nn.Module | None:
        """A copy of the layer with the batch norm ``norm`` folded in; None where scoring runs the two one after the other."""
        return None

    def breaks_channels_last(self, module: nn.Module) -> bool:
        """Whether the layer cannot be trained in channels_last order."""
        return False


def _method(kind: type, name: str) -> Any:
    return getattr(kind, name, None)


def _has_own_weight(module: nn.Module) -> bool:
    return isinstance(module._parameters.get("weight"), nn.Parameter)
