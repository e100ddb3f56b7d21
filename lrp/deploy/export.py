"""Compressed networks for other runtimes."""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from lrp.errors import InputError
from lrp.files import write_whole

TOLERANCE = 1e-5  # of the largest output


def export_onnx(model: nn.Module, inputs: Tensor, path: str | Path, tolerance: float = TOLERANCE) -> float:
    """Write a network that takes one tensor as ONNX, in eval mode, with a dynamic batch; ``inputs`` (B, ...): examples.

    The file is run by onnxruntime on the inputs, and on one of them alone, before it is put in its place: the largest difference
    from the network's outputs is returned, as a share of the largest output. Raises InputError where that exceeds ``tolerance``
    and where the extra ``onnx`` is not installed.
    """
    try:  # the extra onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"export_onnx needs the extra onnx: pip install 'lrp[onnx]' ({error})") from error
    model = copy.deepcopy(model).cpu().eval()
    inputs = inputs.detach().cpu()
    if len(inputs) < 2:  # a batch of one would be taken for a constant
        inputs = torch.cat([inputs, inputs])
    difference = 0.0

    def write(file: Path) -> None:
        nonlocal difference
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                shapes = ({0: torch.export.Dim("batch")},)
                program = torch.onnx.export(model, (inputs,), dynamo=True, dynamic_shapes=shapes, verbose=False)
                program.save(str(file), external_data=False)
        except Exception as error:  # whatever tracing the network raises
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"export_onnx: torch cannot export the network ({reason})") from error
        finally:
            logging.disable(level)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for batch in (inputs, inputs[:1]):
            with torch.no_grad():
                expected = model(batch)
            flat = list(expected.values()) if isinstance(expected, dict) else expected
            flat = flat if isinstance(flat, (tuple, list)) else [flat]
            for ours, theirs in zip(flat, session.run(None, {name: batch.numpy()}), strict=True):
                scale = max(float(ours.abs().max()), torch.finfo(torch.float32).tiny)
                apart = float((ours - torch.from_numpy(theirs)).abs().max()) / scale
                if not apart <= tolerance:  # not a number neither
                    raise InputError(f"export_onnx: onnxruntime's outputs differ by {apart:.1e} of the largest, more than {tolerance:g}")
                difference = max(difference, apart)

    write_whole(Path(path), write)
    return difference
