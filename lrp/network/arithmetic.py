"""How a network is run: the arithmetic that measurements insist on, what layers are called with, and errors in one sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lrp.batches import Inputs, call, counted, examples, tensors
from lrp.errors import InputError, first_line
from lrp.matrices import LayerMatrix


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


NONE_NEEDED = "estimator='exact', decomposition='svd', compensation='none' need none"
# What torch says, and what that means.
OF_TORCH = {
    "inplace operation": f"it writes into a value that a gradient needs; {NONE_NEEDED}",
    "use_reentrant=True": "it runs torch.utils.checkpoint with use_reentrant=True, through which no gradient of a layer's output can be "
    f"found; use_reentrant=False can be used, and {NONE_NEEDED}",
}


@contextlib.contextmanager
def in_one_sentence(model: nn.Module) -> Iterator[None]:
    """What torch cannot compute of a network, in one sentence.

    Raises:
        InputError: For matrices that have no decomposition, and for networks through which gradients cannot be found.
        RuntimeError: As it came, whatever else torch says.
    """
    name = type(model).__name__
    try:
        yield
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        reason = f"a matrix of its values cannot be decomposed ({first_line(error)}); they may be too large or too small"
        raise InputError("model", name, reason) from error
    except RuntimeError as error:
        for said, reason in OF_TORCH.items():
            if said in str(error):
                raise InputError("model", name, reason) from error
        raise


def memory_of(value: Tensor) -> tuple[int, int]:
    """Where a tensor's numbers are, equal for two that share them, and how many bytes that takes, of a sparse tensor at most."""
    if value.layout != torch.strided or value.is_nested:  # it has no one storage
        return id(value), value.numel() * value.element_size()
    storage = value.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


def layer_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a layer is called with."""
    return args[0] if args else kwargs["input"]


def random_signs(shape: tuple[int, int], generator: torch.Generator, padded: bool = False) -> Tensor:
    """Signs +-1. What a row begins with does not depend on its length where outputs may be ``padded``: padding then changes no sign
    that counts."""
    if not padded:
        return 2 * torch.randint(0, 2, shape, generator=generator) - 1
    own = torch.Generator().manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    return 2 * torch.randint(0, 2, shape[::-1], generator=own).T - 1


def read_output(read: Callable[..., Tensor], result: Any, inputs: Inputs, copies: int = 1) -> Tensor:
    """What a network returns for ``copies`` of a batch, as ``read`` reads it: (B, K). It is told which tokens count, where some do
    not."""
    mask = counted(inputs)
    return read(result) if mask is None else read(result, mask.repeat(copies, 1))


def check_rows(y: Tensor, images: Inputs) -> None:
    """Nothing, where the network's output ``y`` has a row for each of the ``images``.

    Raises:
        InputError: Where it has another number of rows.
    """
    if len(y) != examples(images):
        given = f"the network gives {len(y)} outputs for {examples(images)} examples"
        raise InputError(f"{given}; the first dimension of its output must run over the examples")


@torch.no_grad()
def check_finite(y: Tensor, module: nn.Module, layers: Sequence[str], images: Inputs) -> None:
    """Nothing, where the network's output ``y`` on ``images`` is finite and has a row for each of them.

    Raises:
        InputError: If ``y`` holds another number of rows, or a value that is not finite, naming the first layer that reads or gives
            one.
    """
    check_rows(y, images)
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


def check_weights(matrices: Mapping[str, LayerMatrix]) -> None:
    """Check that every weight is finite.

    Raises:
        InputError: With the layer's name, for one that is not.
    """
    for name, matrix in matrices.items():
        if not bool(torch.isfinite(matrix.weight).all()):
            raise InputError(f"layer {name}: its weight holds values that are not finite, so it cannot be decomposed")
