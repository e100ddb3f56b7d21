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
    """What a recovery may look at.

    Attributes:
        images: Gives the unlabelled calibration images in batches (B, ...), normalised, on the network's device.
        data: The labelled images; None where there are none (``lrp.compress``).
        teacher: The dense network, in any mode, which no recovery changes.
        unfinished: A file in which a recovery that takes long keeps its state; None: nothing is kept.
        seed: Of the job, for what is drawn at random.
        pick: Gets the logits (B, K) out of what the network returns, where that is not a tensor (``estimator.pick``).
        output: The name of what ``pick`` does, which a trained network depends on.
    """

    images: Callable[[], Iterable[Inputs]]
    data: Data | None = None
    teacher: nn.Module | None = None
    unfinished: Path | None = None
    seed: int = 0
    pick: Callable[[Any], Tensor] | None = None
    output: str = ""
