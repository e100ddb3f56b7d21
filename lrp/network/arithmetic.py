"""How a network is run: the arithmetic that measurements insist on, what layers are called with, and errors in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Inputs, call, examples, tensors
from lrp.errors import InputError


@contextlib.contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32: a perturbation is small against their rounding."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, value in zip(backends, before):
            backend.allow_tf32 = value


def layer_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a layer is called with."""
    return args[0] if args else kwargs["input"]


@torch.no_grad()
def check_finite(y: Tensor, module: nn.Module, layers: Sequence[str], images: Inputs) -> None:
    """Nothing, where the network's output ``y`` on ``images`` is finite and has a row for each of them.

    Raises:
        InputError: If ``y`` holds another number of rows, or a value that is not finite, naming the first layer that reads or gives
            one.
    """
    if len(y) != examples(images):
        given = f"the network gives {len(y)} outputs for {examples(images)} examples"
        raise InputError(f"{given}; the first dimension of its output must run over the examples")
    if bool(torch.isfinite(y).all()):
        return
    found: list[str] = []

    def look(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        for what, value in (("reads", layer_input(args, kwargs)), ("gives", output)):
            if not found and not bool(torch.isfinite(value).all()):
                found.append(f"layer {name}: it {what} values that are not finite on the calibration images, so nothing can be scored")

    modules = dict(module.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda _, args, kwargs, output, name=name: look(name, args, kwargs, output), with_kwargs=True)
        for name in layers
        if name in modules
    ]
    try:
        call(module, images)
    finally:
        for handle in handles:
            handle.remove()
    raise InputError(found[0] if found else "the network's outputs are not finite on the calibration images, so nothing can be scored")


def run_model(model: nn.Module, inputs: Inputs, said_before: str = "") -> Any:
    """The network's output.

    Raises:
        InputError: Where it cannot run on these inputs.
    """
    try:
        return call(model, inputs)
    except InputError:
        raise
    except Exception as error:  # whatever the network raises
        kinds = (f"shape {tuple(x.shape)} and type {str(x.dtype).removeprefix('torch.')}" for x in tensors(inputs))
        what = f"the network cannot run on inputs of {', '.join(kinds)}"
        raise InputError(f"{said_before}{what} ({(str(error).splitlines() or [type(error).__name__])[0]})") from error
