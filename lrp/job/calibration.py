"""Which images a job calibrates on. Torch-free when imported: the schema of the configuration is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrp.errors import InputError, check_int

if TYPE_CHECKING:
    import torch

    from lrp.dataset.base import Data, Part


@dataclass  # not frozen: OmegaConf would make the configuration's node read-only
class Calibration:
    """Unlabelled training images, and how much of them is looked at.

    ``images``: so many, drawn by ``seed``; decompositions and compensation look at all of them.
    ``scoring_images``: scores look at the first so many of them.
    ``batch_size``: images at a time where a recovery reads them.
    ``samples``: positions of a layer's output looked at, in all images together (about).
    """

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
            raise InputError("calibration.scoring_images", self.scoring_images, f"must be at most calibration.images={self.images}")


def _normalised(data: Data, part: Part, size: int, device: torch.device) -> Iterator[torch.Tensor]:
    for images in part.images.tensor_split(-(-len(part) // size)):  # of about one size: a last small batch would count as much
        yield data.network_input(images, device)
