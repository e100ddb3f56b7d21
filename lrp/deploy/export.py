"""Compressed networks for other runtimes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrp.errors import InputError, first_line
from lrp.files import write_whole
from lrp.layer.duplicate import duplicate

TOLERANCE = 1e-5  # of the largest output


def export_onnx(model: nn.Module, inputs: Tensor, path: str | Path, tolerance: float = TOLERANCE) -> float:
    """Write a network that takes one tensor as ONNX, in eval mode, with a dynamic batch.

    The file is run by onnxruntime on the inputs, and on one of them alone, before it is put in its place.

    Args:
        model: The network, which stays as it is.
        inputs: Examples (B, ...).
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
    model = duplicate(model).cpu().eval()
    inputs = inputs.detach().cpu()
    if len(inputs) < 2:  # a batch of one would be taken for a constant
        inputs = torch.cat([inputs, inputs])
    difference = 0.0

    def write(file: Path) -> None:
        nonlocal difference
        _export(model, inputs, file)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        difference = max(_difference(model, session, batch, tolerance) for batch in (inputs, inputs[:1]))

    write_whole(Path(path), write)
    return difference


def _export(model: nn.Module, inputs: Tensor, file: Path) -> None:
    """Write the file; torch's own warnings and log lines are about its insides and are not shown.

    Raises:
        InputError: Where torch cannot export the network.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            shapes = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(model, (inputs,), dynamo=True, dynamic_shapes=shapes, verbose=False)
            assert program is not None, "with dynamo=True and no file name torch returns the program"
            program.save(str(file), external_data=False)
    except Exception as error:  # whatever tracing the network raises
        raise InputError(f"export_onnx: torch cannot export the network ({first_line(error)})") from error
    finally:
        logging.disable(level)


def _difference(model: nn.Module, session: Any, batch: Tensor, tolerance: float) -> float:
    """The largest difference between what an onnxruntime session and the network give for a batch, as a share of the largest output.

    Raises:
        InputError: Where it exceeds ``tolerance`` or is not a number.
    """
    with torch.no_grad():
        expected = model(batch)
    flat = list(expected.values()) if isinstance(expected, dict) else expected
    flat = flat if isinstance(flat, (tuple, list)) else [flat]
    difference = 0.0
    for ours, theirs in zip(flat, session.run(None, {session.get_inputs()[0].name: batch.numpy()}), strict=True):
        scale = max(float(ours.abs().max()), torch.finfo(torch.float32).tiny)
        apart = float((ours - torch.from_numpy(theirs)).abs().max()) / scale
        if not apart <= tolerance:  # true for NaN, too
            raise InputError(f"export_onnx: onnxruntime's outputs differ by {apart:.1e} of the largest, more than {tolerance:g}")
        difference = max(difference, apart)
    return difference
