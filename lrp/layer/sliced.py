"""Dense layers and batch norms with fewer features: some outputs or inputs taken out, everything else as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lrp.layer.build import find_kind, unsupported
from lrp.layer.compressed import Compressed

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SIZES: dict[type[nn.Module], tuple[str, ...]] = {  # what tells how wide a module is
    nn.Linear: ("in_features", "out_features"),
    **dict.fromkeys(CONVS, ("in_channels", "out_channels", "groups")),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), ("num_features",)),
}
MARK = "narrowed_from"  # of a module whose features were taken out: the sizes that it had in its architecture
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def why_not_sliced(module: nn.Module) -> str | None:
    """Why features cannot be taken out of a layer or batch norm; None where they can."""
    if type(module) not in SIZES:
        return f"{type(module).__name__} has features that cannot be taken out"
    if any(getattr(module, name) for name in _HOOKS):
        return "it has forward hooks"
    if find_kind(module) is None:
        return None
    reason = unsupported(module)
    return reason if reason != "depthwise" else None


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm over features."""
    return isinstance(module, _BatchNorm)


def is_depthwise(module: Any) -> bool:
    """Whether each output of a convolution reads one input channel."""
    return isinstance(module, CONVS) and 1 < module.groups == module.in_channels


def groups_of(module: Any) -> int:
    """The groups of a layer's inputs: 1 of a Linear."""
    return getattr(module, "groups", 1)


def inputs_of(module: Any) -> int:
    """How many input features or channels a dense layer reads."""
    return module.in_features if isinstance(module, nn.Linear) else module.in_channels


def as_column(module: Any, values: Tensor, dims: int) -> Tensor:
    """``values`` (M,) of a layer's outputs, to be spread over an output of so many dimensions."""
    return values if isinstance(module, nn.Linear) else values.view(-1, *[1] * (dims - 2))


@torch.no_grad()
def keep_outputs(module: Any, keep: Tensor) -> None:
    """Take the outputs that ``keep`` (M,) bool does not name out of a layer, or the features out of a batch norm, in place.

    Of a grouped convolution each group has to lose as many; of a depthwise one the input channels go with the outputs.
    """
    _mark(module)
    if is_norm(module):
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None and value.dim():
                    held[name] = _part(value, keep, 0)
        module.num_features = int(keep.sum())
        return
    _set_weight(module, keep, 0)
    if module.bias is not None:
        module.bias = _part(module.bias, keep, 0)
    if isinstance(module, nn.Linear):
        module.out_features = int(keep.sum())
        return
    if is_depthwise(module):
        module.in_channels = module.groups = int(keep.view(module.groups, -1)[:, 0].sum())
    module.out_channels = int(keep.sum())


@torch.no_grad()
def keep_inputs(module: Any, keep: Tensor) -> None:
    """Take the input features that ``keep`` (inputs,) bool does not name out of a layer, in place.

    Of a grouped convolution each group has to lose the same ones, counted from its first.
    """
    _mark(module)
    if isinstance(module, nn.Linear):
        _set_weight(module, keep, 1)
        module.in_features = int(keep.sum())
        return
    _set_weight(module, keep.view(module.groups, -1)[0], 1)
    module.in_channels = int(keep.sum())


def resize(module: Any, sizes: Mapping[str, int]) -> None:
    """Give a layer or batch norm other sizes, none of them larger than its own, in place; its values have no meaning then.

    Raises:
        ValueError: For sizes that it cannot have.
    """
    now = {name: getattr(module, name) for name in SIZES.get(type(module), ())}
    if not now or sizes.keys() != now.keys() or not all(type(n) is int and 1 <= n <= now[name] for name, n in sizes.items()):
        raise ValueError(f"a {type(module).__name__} of {now} cannot have {dict(sizes)}")
    _mark(module)
    if is_norm(module):
        keep_outputs(module, torch.arange(now["num_features"]) < sizes["num_features"])
        return
    inputs, outputs = list(sizes)[:2]
    groups = sizes.get("groups", 1)
    if sizes[inputs] % groups or sizes[outputs] % groups:
        raise ValueError(f"{sizes[inputs]} inputs and {sizes[outputs]} outputs do not divide into {groups} groups")
    weight = module.weight
    wanted = sizes[outputs], sizes[inputs] // groups
    if any(n > have for n, have in zip(wanted, weight.shape)):
        raise ValueError(f"a {type(module).__name__} of {now} cannot have {dict(sizes)}")
    module.weight = nn.Parameter(weight.detach()[: wanted[0], : wanted[1]].clone(), requires_grad=weight.requires_grad)
    if module.bias is not None:
        module.bias = nn.Parameter(module.bias.detach()[: wanted[0]].clone(), requires_grad=module.bias.requires_grad)
    for name, size in sizes.items():
        setattr(module, name, size)


def narrowed(module: Any) -> dict[str, Any] | None:
    """What a file says of a module that features were taken out of, or of the compressed layer in its place: its type, its sizes before
    and now."""
    before = vars(module).get(MARK)
    if before is None:
        return None
    kind = module.dense if isinstance(module, Compressed) else type(module)
    return {"type": kind.__name__, "from": dict(before), "to": {name: getattr(module, name) for name in before}}


def _mark(module: Any) -> None:
    if MARK not in vars(module):
        setattr(module, MARK, {name: getattr(module, name) for name in SIZES[type(module)]})


def _set_weight(module: Any, keep: Tensor, dim: int) -> None:
    module.weight = _part(module.weight, keep, dim)


def _part(value: Tensor, keep: Tensor, dim: int) -> Tensor:
    """The entries of a parameter or buffer that stay, of its kind."""
    found = value.detach().index_select(dim, keep.nonzero()[:, 0].to(value.device))
    return nn.Parameter(found, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else found
