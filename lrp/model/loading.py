"""Weights from a file into a network, or a sentence about why they do not fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lrp.errors import InputError, first_line


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a ``torch.save`` file, which is read with weights_only=True.

    A file that holds its weights under "state_dict" or "model" is understood.

    Raises:
        InputError: For a file that is not there, cannot be read, or holds anything but tensors.
    """
    if not path.is_file():
        raise InputError("model.checkpoint", path, "no such file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        what = "a safetensors file" if path.suffix == ".safetensors" else "a file of tensors alone (weights_only=True)"
        raise InputError("model.checkpoint", path, f"it cannot be read as {what} ({first_line(error)})") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError("model.checkpoint", path, "it does not hold a dictionary of tensors")
    return state


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint, casting every tensor to the network's dtype.

    Raises:
        InputError: For a file that does not fit the network, naming what does not, and for values that are not finite.
    """
    state = read_state(path)
    own = model.state_dict()
    problems = []
    if missing := [key for key in own if key not in state and not key.endswith("num_batches_tracked")]:
        problems.append("missing " + _some(missing))
    if unexpected := [key for key in state if key not in own]:
        problems.append("not in the network " + _some(unexpected))
    wrong = [f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}" for k in own if k in state and state[k].shape != own[k].shape]
    if wrong:
        problems.append("of another shape " + _some(wrong))
    if problems:
        raise InputError("model.checkpoint", path, "it does not fit the network: " + "; ".join(problems))
    bad = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise InputError("model.checkpoint", path, "it holds values that are not finite in " + _some(bad))
    model.load_state_dict(state, strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
