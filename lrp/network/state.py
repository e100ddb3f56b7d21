"""What a network keeps besides its parameters, held as it is while it runs for lrp's own ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from lrp.batches import odd_layout
from lrp.layer.compressed import Compressed

PLAIN = (bool, int, float, str, type(None), Tensor)


@contextlib.contextmanager
def unchanged_state(model: nn.Module) -> Iterator[None]:
    """What a forward writes is put back at the end: buffers, tensors, numbers, strings, and what lists, dicts and sets hold. A forward may
    count its calls, keep a running mean, or collect values. Modes and what is added are left as they are, and a compressed layer's own:
    no forward writes that, a compensation does."""
    held = [(module, _plain(module), _buffers(module)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes, buffers in held:
            for name in [name for name, value in vars(module).items() if isinstance(value, (Tensor, fx.Proxy)) and name not in attributes]:
                del vars(module)[name]
            for name, (value, content) in attributes.items():
                if name != "training" and name in vars(module):
                    vars(module)[name] = value
                    _refill(value, content)
            with torch.no_grad():
                for name, before in buffers.items():
                    now = module._buffers.get(name)
                    if not isinstance(now, Tensor):  # while a network is traced a forward may put a proxy there
                        module._buffers[name] = before
                        continue
                    if odd_layout(now) or odd_layout(before):  # which torch cannot compare
                        module._buffers[name] = before
                        continue
                    if torch.equal(now, before):
                        continue
                    if now.shape == before.shape and now.is_contiguous():  # it may share its memory
                        now.copy_(before)
                    else:
                        module._buffers[name] = before


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    own = module.own if isinstance(module, Compressed) else ()
    return {name: buffer.clone() for name, buffer in module._buffers.items() if buffer is not None and name not in own}


def _plain(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """The attributes of a module that hold plain values, and what the containers among them hold."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in vars(module).items():
        if isinstance(value, PLAIN):
            found[name] = value, None
        elif type(value) in (list, dict, set) and not name.startswith("_"):
            found[name] = value, value.copy()
    return found


def _refill(value: Any, content: Any) -> None:
    if type(value) is list:
        value[:] = content
    elif type(value) in (dict, set):
        value.clear()
        value.update(content)
