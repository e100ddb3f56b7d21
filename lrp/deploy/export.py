"""Compressed networks for other runtimes."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lrp.batches import Inputs, call, cut, on_tensors, tensors
from lrp.errors import InputError, check_float, first_line
from lrp.files import check_file, write_whole
from lrp.inputs import Each, arguments, leaves
from lrp.layer.duplicate import check_module, duplicate, ordinary

TOLERANCE = 1e-5  # of the largest output


@ordinary
def export_onnx(model: nn.Module, inputs: Inputs, path: str | Path, tolerance: float = TOLERANCE) -> float:
    """Write a network as ONNX, in eval mode, with a dynamic batch.

    The file is run by onnxruntime on the inputs, and on one of them alone, before it is put in its place.

    Args:
        model: The network, which stays as it is.
        inputs: Examples as the network takes them: a tensor (B, ...), a tuple of positional or a mapping of keyword arguments. Each tensor
            is an input of the file, in order; what is not a tensor is a constant there. Of a list of one tensor an example (``Each``)
            the file takes as many, of the same shapes.
        path: The file.
        tolerance: The largest difference from the network's outputs that is allowed, as a share of the largest output.

    Returns:
        The largest difference found, as such a share.

    Raises:
        InputError: Where that exceeds ``tolerance``, where torch cannot export the network, and where the extra ``onnx`` is not
            installed.
    """
    try:  # the extra onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"export_onnx needs the extra onnx: pip install 'lrp[onnx]' ({error})") from error
    check_module(model)
    check_float("tolerance", tolerance, least=0)
    given = tensors(inputs) if isinstance(inputs, Tensor | tuple | Mapping) else []
    alone = any(isinstance(leaf, Each) for leaf in leaves(inputs)) if given else False
    if given and not alone and all(tensor.dim() and not len(tensor) for tensor in given):
        raise InputError("inputs: it is empty; give at least one example")
    if not given or not alone and any(not tensor.dim() or len(tensor) != len(given[0]) or not len(tensor) for tensor in given):
        raise InputError("inputs", type(inputs).__name__, "give a tensor (B, ...) of examples, or a tuple or mapping of such tensors")
    path = check_file("path", path)
    model = duplicate(model).cpu().eval()
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if getattr(config, "use_cache", False):  # of transformers: keys and values of earlier tokens, which no type of ONNX holds
            config.use_cache = False
    inputs = on_tensors(lambda tensor: tensor.detach().cpu(), inputs)
    if not alone and len(given[0]) < 2:  # a batch of one would be taken for a constant
        inputs = on_tensors(lambda tensor: torch.cat([tensor, tensor]), inputs)
    difference = 0.0

    def write(file: Path) -> None:
        nonlocal difference
        _export(model, inputs, file, not alone)
        try:
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever onnxruntime cannot run
            half = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
            advice = "; it has no kernels for bfloat16: call .float() on the network and the inputs first" if half else ""
            raise InputError(f"export_onnx: onnxruntime cannot run the network ({first_line(error)}){advice}") from error
        tried = [inputs] if alone else [inputs, cut(inputs, 0, 1)]
        difference = max(_difference(model, session, batch, tolerance) for batch in tried)

    write_whole(path, write)
    return difference


def _export(model: nn.Module, inputs: Inputs, file: Path, dynamic: bool) -> None:
    """Write the file, with a ``dynamic`` batch or one as large as ``inputs``; torch's own warnings and log lines are about its insides
    and are not shown.

    Raises:
        InputError: Where torch cannot export the network.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        hidden = io.StringIO()
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden):
            warnings.simplefilter("ignore")
            batch = torch.export.Dim("batch")
            args, kwargs = tree_map(lambda leaf: [*leaf] if isinstance(leaf, Each) else leaf, tuple(arguments(inputs)))  # what torch knows
            names = list(inspect.signature(model.forward).parameters)
            named = {**dict(zip(names, args)), **kwargs}
            shapes: Any = tree_map(lambda leaf: {0: batch} if isinstance(leaf, Tensor) else None, named) if dynamic else None
            program = torch.onnx.export(model, args, kwargs=kwargs, dynamo=True, dynamic_shapes=shapes, verbose=False)
            assert program is not None, "with dynamo=True and no file name torch returns the program"
            program.save(str(file), external_data=False)
    except Exception as error:  # whatever tracing the network raises
        raise InputError(f"export_onnx: torch cannot export the network ({first_line(_cause(error))})") from error
    finally:
        logging.disable(level)


def _cause(error: BaseException) -> BaseException:
    """What an error goes back to: torch's own says only at which step it failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _difference(model: nn.Module, session: Any, batch: Inputs, tolerance: float) -> float:
    """The largest difference between what an onnxruntime session and the network give for a batch, as a share of the largest output.

    Raises:
        InputError: Where it exceeds ``tolerance`` or is not a number.
    """
    with torch.no_grad():
        expected = call(model, batch)
    flat = tensors(expected)
    names, held = [each.name for each in session.get_inputs()], tensors(batch)
    if len(names) != len(held):  # one that changes nothing is no input of the file
        raise InputError(
            f"export_onnx: the file has the inputs {', '.join(names)}, of {len(held)} tensors that were given; leave out the others"
        )
    given = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, held)})
    if len(flat) != len(given):
        raise InputError(f"export_onnx: the network gives {len(flat)} tensors, onnxruntime {len(given)}, so they cannot be compared")
    difference = 0.0
    for ours, theirs in zip(flat, given, strict=True):
        scale = max(float(ours.abs().max()), torch.finfo(torch.float32).tiny)
        apart = float((ours - torch.from_numpy(theirs)).abs().max()) / scale
        if not apart <= tolerance:  # true for NaN, too
            raise InputError(f"export_onnx: onnxruntime's outputs differ by {apart:.1e} of the largest, more than {tolerance:g}")
        difference = max(difference, apart)
    return difference
