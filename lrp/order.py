"""Orders of the rows and input channels of layer matrices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Order:
    """The order in which the rows and columns of a layer matrix lie where blocks are cut from it; None: as they are.

    Attributes:
        channels: The input channels.
        kernel: Columns per input channel.
        rows: The rows.
    """

    channels: tuple[int, ...] | None = None
    kernel: int = 1
    rows: tuple[int, ...] | None = None

    @cached_property
    def row_index(self) -> Tensor | None:
        """(M,) int64."""
        return None if self.rows is None else torch.tensor(self.rows)

    @cached_property
    def column_index(self) -> Tensor | None:
        """(N,) int64."""
        return None if self.channels is None else column_order(torch.tensor(self.channels), self.kernel)


def column_order(channels: Tensor, kernel: int) -> Tensor:
    """The columns (C kernel,) of input channels (C,) in this order."""
    return (channels[:, None] * kernel + torch.arange(kernel, device=channels.device)).flatten()
