"""The ``Conv1D`` of transformers: a Linear whose weight is stored as (N, M)."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from lrp.standin.base import StandIn, is_usual, linear


class TransposedLinear(StandIn):
    """Of GPT, GPT-2 and their like. transformers is asked only where somebody has imported it: there is no such layer before."""

    name = "transformers.Conv1D"

    def stands_for(self, module: nn.Module) -> bool:  # noqa: D102
        utils = sys.modules.get("transformers.pytorch_utils")
        return utils is not None and type(module) is utils.Conv1D and is_usual(module, "weight", "bias")

    def make(self, module: Any) -> nn.Module:  # noqa: D102
        return linear(module.weight.T, module.bias)
