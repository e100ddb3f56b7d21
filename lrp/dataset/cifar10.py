"""CIFAR-10."""

from __future__ import annotations

from dataclasses import dataclass

from lrp.dataset.downloaded import Downloaded


@dataclass(frozen=True)
class Cifar10(Downloaded):
    """CIFAR-10 (Krizhevsky, 2009): 50,000 and 10,000 colour images of 32 x 32."""

    name = "cifar10"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    shape = (32, 32, 3)

    flip: bool = True
