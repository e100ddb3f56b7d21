"""What compressed layers of every form share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lrp.errors import InputError
from lrp.layer.carry import carry_over
from lrp.layer.dense_view import DenseView
from lrp.matrices import LayerMatrix


class Compressed(nn.Module):
    """A layer whose matrix (M x N) is stored in fewer numbers, in one form: real parameters in place of a weight.

    Attributes:
        form: The name of the form.
        dense: The type of torch's layer that this one replaces.
        attributes: Of the dense layer, which code around it may read.
        own: Names of attributes that the compressed layer has and the dense one has not.
        rows, columns: M and N.
        family: The form (``lrp.form``) that plans and refits such layers, where it has another name.
        file_format: The first format of files that holds such layers: a file is written in the lowest one, so that older versions read it.
    """

    form: ClassVar[str]
    family: ClassVar[str | None] = None
    file_format: ClassVar[int] = 2
    dense: ClassVar[type[nn.Module]]
    attributes: ClassVar[tuple[str, ...]]
    own: ClassVar[tuple[str, ...]] = ("rows", "columns")

    def __init__(self, dense: Any, held: Any) -> None:
        """``held``: what of the layer is stored, as ``_hold`` takes it. The parameters have no values yet, but for the bias."""
        super().__init__()
        for name in self.attributes:
            setattr(self, name, getattr(dense, name))
        self.rows, self.columns = self.matrix_of(dense).shape
        self._hold(held, dense.weight)
        self.bias = None
        bias = getattr(dense, "bias", None)  # an embedding has no such attribute
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
        carry_over(dense, self)

    @staticmethod
    def matrix_of(dense: Any) -> Tensor:
        """The weight of a dense layer as its layer matrix (M, N)."""
        return dense.weight.detach().flatten(1)

    def _hold(self, held: Any, like: Tensor) -> None:
        """Make the parameters without values, of the dtype and on the device of ``like``."""
        raise NotImplementedError

    def stored(self) -> dict[str, Any]:
        """What a file has to say of the layer beside its tensors, in plain values."""
        raise NotImplementedError

    @classmethod
    def held(cls, matrix: LayerMatrix, stored: dict[str, Any]) -> Any:
        """What ``stored`` says of a layer with this matrix, as the constructor takes it.

        Raises:
            ValueError: Where the layer cannot be stored so.
        """
        raise NotImplementedError

    def check_loaded(self) -> None:
        """That what was loaded can be run.

        Raises:
            ValueError: Where it cannot.
        """
        return None

    def weight_matrix(self) -> Tensor:
        """The layer matrix (M, N) that the stored parameters amount to."""
        raise NotImplementedError

    def as_pair(self) -> tuple[Tensor, Tensor] | None:
        """U (M, r) and V (r, N) whose product is the layer matrix, through which gradients reach the parameters; None where what is stored
        is no one pair."""
        return None

    def scale_rows(self, scale: Tensor, shift: Tensor) -> None:
        """Make the output (..., M, ...) scale * output + shift, both (M,)."""
        raise NotImplementedError

    def reorder_rows(self, order: Tensor) -> bool:
        """Give the outputs in this order (M,) int64 from now on; False where that cannot be done, and nothing was."""
        return False

    def plain_layers(self) -> list[nn.Module] | str:
        """Plain layers of torch with copies of the parameters that compute the same, one after the other; or why there are none."""
        raise NotImplementedError

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script calls before it looks at a module.

        Raises:
            InputError: Always: it would find Python that TorchScript does not know.
        """
        raise InputError(
            "model",
            type(self).__name__,
            "torch.jit.script knows no compressed layer; use torch.jit.trace, or script lrp.unfold(model), whose log says what stays",
        )

    @property
    def weight(self) -> Tensor:
        """The dense weight that the parameters amount to, for code that looks at a layer's weight: its shape, dtype and device
        cost nothing, its values are made anew where they are read, and it cannot be written."""
        return DenseView(self._dense_weight, self._weight_shape(), self._example())

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As of ``Module``.

        Raises:
            InputError: For a weight: there is none to set.
        """
        if name == "weight":
            raise InputError("weight", type(param).__name__, "the weight of a compressed layer is made from its factors and cannot be set")
        super().register_parameter(name, param)

    @weight.setter
    def weight(self, value: Any) -> None:
        raise InputError("weight", type(value).__name__, "the weight of a compressed layer is made from its factors and cannot be set")

    def _example(self) -> Tensor:
        """A tensor of the layer's dtype, on its device."""
        held = [*self.parameters(), *(buffer for buffer in self.buffers() if buffer.is_floating_point())]
        return next(iter([*held, torch.empty(0)]))

    def _weight_shape(self) -> tuple[int, ...]:
        return self.rows, self.columns

    def _dense_weight(self) -> Tensor:
        return self.weight_matrix().view(self._weight_shape())

    def _set_bias(self, scale: Tensor, shift: Tensor) -> None:
        """The bias scaled and shifted; a layer without one gets it."""
        bias = shift if self.bias is None else self.bias * scale + shift
        example = next(self.parameters(), bias)
        self.bias = nn.Parameter(bias.detach().to(example), requires_grad=example.requires_grad)


class Keeps(Compressed):
    """A compressed layer that is made from some of the components of its blocks."""

    @staticmethod
    def holding(factors: Sequence[Any], keep: Sequence[Tensor]) -> Any:
        """What is stored where only these components stay, masks (R,) of each block, as the constructor takes it."""
        raise NotImplementedError

    def fill(self, dense: Any, factors: Sequence[Any], keep: Sequence[Tensor]) -> None:
        """Set the values from the kept components."""
        raise NotImplementedError


def parameter_maker(like: Tensor) -> Callable[..., nn.Parameter]:
    """What makes a parameter of a shape without values, of the dtype and on the device of ``like``."""
    return lambda *shape: nn.Parameter(like.new_empty(shape), requires_grad=like.requires_grad)


def filled(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A plain layer with copies of this matrix and bias, in their precision and on their device."""
    layer.weight = nn.Parameter(weight.detach().clone().view_as(layer.weight), requires_grad=weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return layer
