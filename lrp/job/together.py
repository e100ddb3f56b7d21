"""Processes that share one job."""

from __future__ import annotations

from torch import nn

from lrp.batches import Batches, tensors
from lrp.files import sha256
from lrp.group import UNIT, Group


def check_together(group: Group, model: nn.Module, batches: Batches) -> None:
    """That all processes of a group have the same network and the same examples.

    Raises:
        InputError: Where they differ.
    """
    if group.size > 1:
        group.check_same(sha256(part for pair in sorted(model.state_dict().items()) for part in pair), "weights")
        group.check_same([len(batches), *(sha256(tensors(batch)) for batch in batches.split(UNIT))], "examples")
