"""Which images a job calibrates on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lrp.dataset.base import Data, Part
from lrp.errors import InputError, check_int


@dataclass(frozen=True)
class Calibration:
    """``images`` unlabelled training images, drawn by ``seed``; scores look at the first ``scoring_images`` of them, decompositions
    and compensation at all of them, at about ``samples`` positions of a layer's output in all of them together."""

    images: int = 512
    scoring_images: int = 64
    seed: int = 0
    batch_size: int = 128
    samples: int = 65536

    def __post_init__(self) -> None:
        check_int("calibration.images", self.images, 1)
        check_int("calibration.scoring_images", self.scoring_images, 1)
        check_int("calibration.seed", self.seed, 0)
        check_int("calibration.batch_size", self.batch_size, 2)
        check_int("calibration.samples", self.samples, 1)
        if self.scoring_images > self.images:
            raise InputError("calibration.scoring_images", self.scoring_images, f"at most calibration.images={self.images} is allowed")


def _normalised(data: Data, part: Part, size: int, device: torch.device):
    for images in part.images.tensor_split(-(-len(part) // size)):  # of about one size: a last small batch would count as much
        yield data.network_input(images, device)
