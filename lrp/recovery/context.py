"""What a recovery is given besides the pruned network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lrp.batches import Inputs
from lrp.dataset.base import Data


@dataclass(frozen=True)
class Context:
    """``images`` gives the unlabelled calibration images in batches (B, ...), normalised, on the network's device.

    ``data``: the labelled images, None where there are none (``lrp.compress``). ``teacher``: the dense network, in any mode,
    which no recovery changes. ``unfinished``: a file in which a recovery that takes long keeps its state; None: nothing is kept.
    ``pick`` gets the logits out of what the network returns, where that is not a tensor (``estimator.pick``).
    """

    images: Callable[[], Iterable[Inputs]]
    data: Data | None = None
    teacher: nn.Module | None = None
    unfinished: Path | None = None
    seed: int = 0
    pick: Callable[[Any], Tensor] | None = None


@dataclass(frozen=True)
class Unused:
    """The options of ``finetune``, accepted by every recovery so that a sweep over recoveries may set them, and not used."""

    epochs: int = 20
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    precision: str = "float32"
    distill: float = 0.0
    temperature: float = 4.0
    images: int | None = None
    hold_out: bool = True
