"""Wrappers around networks: of torch.compile, of training on several devices, and of averaged weights."""

from __future__ import annotations

import logging

from torch import nn
from torch.optim.swa_utils import AveragedModel

from lrp.layer.build import replace_layer
from lrp.layer.duplicate import duplicate

log = logging.getLogger(__name__)
AROUND = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside of any wrappers; what torch.compile wraps inside of it is taken out of a copy."""
    while True:
        if "_orig_mod" in model._modules:  # torch.compile's: its type would import the compiler
            inner = model._modules["_orig_mod"]
        elif isinstance(model, AROUND):
            inner = model.module
        else:
            return _compiled_inside(model)
        assert inner is not None
        log.info("%s: the network inside of it is used", type(model).__name__)
        model = inner


def _compiled_inside(model: nn.Module) -> nn.Module:
    """The network, or a copy of it without what torch.compile wraps around some of its modules: compiled code calls the old layers."""
    names = [name for name, module in model.named_modules() if "_orig_mod" in module._modules]
    if not names:
        return model
    log.info("torch.compile around %s: the modules inside are used", ", ".join(names))
    result = duplicate(model)
    for name in sorted(names, key=len, reverse=True):
        inner = result.get_submodule(name)._modules["_orig_mod"]
        assert inner is not None
        result = replace_layer(result, name, inner)
    return result
