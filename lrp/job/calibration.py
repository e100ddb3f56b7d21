"""Which images a job calibrates on. Torch-free when imported: the schema of the configuration is made from it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrp.errors import InputError, check_int, check_seed

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from lrp.dataset.base import Data, Part


@dataclass  # not frozen: OmegaConf would make the configuration's node read-only
class Calibration:
    """Unlabelled training images, and how much of them is looked at.

    Attributes:
        images: How many are drawn by ``seed``; decompositions and compensation look at all of them.
        scoring_images: How many of them, from the first on, scores look at.
        batch_size: Images at a time where a recovery reads them.
        samples: About how many positions of a layer's output are looked at, in all images together.
    """

    images: int = 512
    scoring_images: int = 64
    seed: int = 0
    batch_size: int = 128
    samples: int = 65536

    def __post_init__(self) -> None:
        check_int("calibration.images", self.images, 1)
        check_int("calibration.scoring_images", self.scoring_images, 1)
        check_seed("calibration.seed", self.seed)
        check_int("calibration.batch_size", self.batch_size, 2)
        check_int("calibration.samples", self.samples, 1)
        if self.scoring_images > self.images:
            raise InputError("calibration.scoring_images", self.scoring_images, f"must be at most calibration.images={self.images}")


def calibration_parts(data: Data, calibration: Calibration) -> tuple[Part, Part]:
    """The calibration images of a data set, as many as there are, and the first of them, which are scored on."""
    count = min(calibration.images, len(data.train))
    if count < calibration.images:
        log.warning("calibration.images=%d: the training part of %s holds %d, which are used", calibration.images, data.name, count)
    import torch  # torch late: the schema reads this module before the words are checked

    images = data.calibration(count, calibration.seed)
    return images, images.take(torch.arange(min(count, calibration.scoring_images)))
