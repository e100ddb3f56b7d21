"""Why a network cannot run on tokens: there are too many of them, or it does not know them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lrp.errors import InputError
from lrp.network.arithmetic import run_model


def run_or_explain(model: nn.Module, inputs: Tensor, said_before: str) -> Any:
    """The network's output.

    Raises:
        InputError: Where it cannot run on these inputs. Of tokens (B, T) it says whether T is more than the network takes, or its
            vocabulary is another.
    """
    try:
        return run_model(model, inputs, said_before)
    except InputError as error:
        if inputs.dim() != 2 or inputs.is_floating_point():
            raise
        length, zeros = inputs.shape[1], torch.zeros_like(inputs)
        if _runs(model, zeros):
            reason = f"it runs on the token 0 and not on {int(inputs.max())}; set dataset.tokenizer to its own tokenizer"
            raise InputError(f"{error}: {reason}") from error
        below, above = 0, length  # it runs on ``below`` and not on ``above``
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (middle, above) if _runs(model, zeros[:, :middle]) else (below, middle)
        if not below:
            raise
        raise InputError("dataset.length", length, f"{said_before}the network takes at most {below} tokens") from error


def _runs(model: nn.Module, tokens: Tensor) -> bool:
    try:
        run_model(model, tokens)
    except InputError:
        return False
    return True
