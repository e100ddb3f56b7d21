"""Which images a job calibrates on."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from lrp.dataset.base import Data, Part
from lrp.errors import InputError, check_int

log = logging.getLogger(__name__)


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


def calibration_parts(data: Data, calibration: Calibration) -> tuple[Part, Part]:
    """The calibration images of a data set, as many as there are, and the first of them, which are scored on."""
    count = min(calibration.images, len(data.train))
    if count < calibration.images:
        log.warning("calibration.images=%d: the training part of %s holds %d, which are used", calibration.images, data.name, count)
    images = data.calibration(count, calibration.seed)
    return images, images.take(torch.arange(min(count, calibration.scoring_images)))
