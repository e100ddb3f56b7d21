"""New running statistics for batch norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from lrp.batches import call
from lrp.recovery.context import Context


@dataclass(frozen=True)
class BatchNormRecovery:
    """Re-estimate every batch norm's running mean and variance on unlabelled images.

    The statistics are the cumulative average over the batches; all other modules are in eval mode, no weight changes, and
    modes and momenta are afterwards as they were. A network without batch norm is left as it is.
    """

    name: ClassVar[str] = "batchnorm"
    changes: ClassVar[bool] = True

    @property
    def trains_on_validation(self) -> bool:
        """No label is looked at."""
        return False

    @torch.no_grad()
    def __call__(self, model: nn.Module, context: Context) -> None:
        """Re-estimate the statistics of ``model`` in place on ``context.images``."""
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
        if not norms:
            return
        modes = {module: module.training for module in model.modules()}
        momenta = {norm: norm.momentum for norm in norms}
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
            norm.train()
        for batch in context.images():
            call(model, batch)
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
