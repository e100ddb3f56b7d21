"""Wrappers around networks: of torch.compile, of training on several devices, and of averaged weights."""

from __future__ import annotations

import logging

from torch import nn
from torch.optim.swa_utils import AveragedModel

log = logging.getLogger(__name__)
AROUND = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside of any wrappers."""
    while True:
        if "_orig_mod" in model._modules:  # torch.compile's: its type would import the compiler
            inner = model._modules["_orig_mod"]
        elif isinstance(model, AROUND):
            inner = model.module
        else:
            return model
        assert inner is not None
        log.info("%s: the network inside of it is used", type(model).__name__)
        model = inner
