"""What users put on a layer, carried over to the one that takes its place."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
    "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip
STATE_HOOKS = ("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")
OF_TORCH = frozenset(vars(nn.Module()))


def carry_over(dense: nn.Module, layer: nn.Module) -> None:
    """Give ``layer`` the attributes, buffers and hooks of ``dense`` that it does not have. Hooks are called with ``layer``."""
    for name, value in vars(dense).items():
        if name not in OF_TORCH and name not in vars(layer):
            vars(layer)[name] = value
    layer._buffers.update(dense._buffers)
    layer._non_persistent_buffers_set |= dense._non_persistent_buffers_set
    for name in HOOKS:
        held = getattr(dense, name)
        setattr(layer, name, held.copy() if hasattr(held, "copy") else held)


def not_carried(dense: nn.Module, form: Any, taken: Collection[str]) -> str | None:
    """Why a dense layer holds something that a compressed form could not take over; None where there is nothing of the kind.

    ``taken``: the names that compressed layers have of their own.
    """
    kind = type(dense)
    for name, value in vars(dense).items():
        if name not in OF_TORCH and callable(value) and callable(getattr(kind, name, None)):
            return f"its {name} is its own, not that of {kind.__name__}"
    if any(getattr(dense, name) for name in STATE_HOOKS):
        return "it has hooks on its state_dict"
    more = [*(name for name in dense._parameters if name not in ("weight", "bias")), *dense._modules]
    if more:
        return f"it holds parameters or modules of its own ({', '.join(more)})"
    theirs = {name for name in (*vars(dense), *dense._buffers) if name not in OF_TORCH and name not in form.attributes}
    clash = sorted(name for name in theirs if name in taken or hasattr(form, name) and not hasattr(kind, name))
    return f"it holds something called {clash[0]}, a name that compressed layers use" if clash else None
