"""MNIST."""

from __future__ import annotations

from dataclasses import dataclass

from lrp.dataset.downloaded import Downloaded


@dataclass(frozen=True)
class Mnist(Downloaded):
    """MNIST (LeCun et al., 1998): 60,000 and 10,000 grey images of 28 x 28, padded with black to 32 x 32."""

    name = "mnist"
    mean = (0.1307,)
    std = (0.3081,)
    shape = (28, 28, 1)

    crop: int = 2
