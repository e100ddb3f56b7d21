"""torchvision's attention in shifted windows (Swin), which reads the weights of its Linear layers without calling them."""

from __future__ import annotations

import copy
import sys
from typing import Any

from torch import nn

from lrp.standin.base import StandIn, is_usual

TORCHVISION = "torchvision.models.swin_transformer"


class ShiftedWindows(StandIn):
    """The same module with a forward that calls its two Linear layers. Of V2 the bias of the keys, for which torchvision puts zeros at each
    call, is zero in the copy, and trains."""

    name = "windows"
    shares = True

    def stands_for(self, module: nn.Module) -> bool:  # noqa: D102
        kind = type(module)
        if kind not in _kinds():
            return False
        known = {"relative_position_bias_table"} if kind.__name__ == "ShiftedWindowAttention" else {"logit_scale"}
        held: Any = module
        return is_usual(module, *known) and all(type(each) is nn.Linear for each in (held.qkv, held.proj))

    def make(self, module: Any) -> nn.Module:  # noqa: D102
        result = copy.copy(module)
        result.__class__ = _kinds()[type(module)]
        result._modules, result._parameters, result._buffers = ({**held} for held in (module._modules, module._parameters, module._buffers))
        if type(module).__name__.endswith("V2") and module.qkv.bias is not None:  # torchvision puts zeros there at each call
            qkv = copy.copy(module.qkv)
            bias = module.qkv.bias.detach().clone()
            bias.chunk(3)[1].zero_()
            qkv._parameters = {**qkv._parameters, "bias": nn.Parameter(bias, requires_grad=module.qkv.bias.requires_grad)}
            result._modules["qkv"] = qkv
        return result


def _kinds() -> dict[type[nn.Module], type[nn.Module]]:
    """What stands in for which class: for none where nobody has imported torchvision's, which takes seconds."""
    if TORCHVISION not in sys.modules:
        return {}
    from lrp.standin.shifted_windows import OF  # imports torchvision, optional here

    return OF
