"""Layers that no calibration example reaches."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from lrp.batches import Batches, call
from lrp.layer.duplicate import measured_copy
from lrp.layer_statistics.gather import NEVER
from lrp.layer_statistics.limits import images_at_once
from lrp.network.survey import Candidates


def never_run(model: nn.Module, candidates: Candidates, inputs: Batches, memory: float) -> dict[str, str]:
    """Why the layers without statistics have none, by their names: batches run until each layer has.

    Args:
        model: The network.
        candidates: Its layers.
        inputs: Calibration examples.
        memory: Bytes of activations that run at once.
    """
    with torch.inference_mode(False):
        twin = measured_copy(model, share=not candidates.writes)
    waiting = dict.fromkeys(candidates.matrices)
    chunk = images_at_once(twin, list(waiting), inputs, False, memory, inputs.unit)
    with contextlib.ExitStack() as handles, torch.inference_mode():
        for name in candidates.matrices:
            hook = twin.get_submodule(name).register_forward_hook(lambda *_, name=name: waiting.pop(name, None))
            handles.callback(hook.remove)
        for batch in inputs.split(chunk):
            if not waiting:
                break
            call(twin, batch)
    return dict.fromkeys(waiting, NEVER)
