"""Image data sets in memory, and their fixed division into train, validation and test.

Images stay uint8; they are normalised, and for training augmented, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lrp.errors import InputError, check_bool, check_int
from lrp.files import sha256

SPLIT_SEED = 20240  # one division for every job: no option moves it
VALIDATION_IMAGES = 5000


@dataclass(frozen=True)
class Part:
    """One part of a data set.

    Attributes:
        images: (B, C, H, W) uint8.
        labels: (B,) int64.
        index: (B,) int64, each image's place in the training or test set as stored.
    """

    images: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def take(self, which: Tensor) -> Part:
        """The images at these places (n,), in this order."""
        return Part(self.images[which], self.labels[which], self.index[which])


@dataclass(frozen=True)
class Data:
    """A data set divided into disjoint parts.

    Attributes:
        name: Of the data set.
        train: The training images without those of ``validation``.
        validation: A tenth of the training images, at most 5,000.
        test: The test images.
        mean: Of each channel, of pixels in [0, 1].
        std: The standard deviation of each channel, of pixels in [0, 1].
        crop: Pixels by which training images are padded before they are cropped.
        flip: Whether training images are mirrored at random.
        num_classes: Labels are in [0, num_classes).
    """

    name: str
    train: Part
    validation: Part
    test: Part
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    flip: bool
    num_classes: int

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[1]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to float32: pixels / 255, less the mean, over the standard deviation of each channel."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, device=images.device).view(shape)
        std = torch.tensor(self.std, device=images.device).view(shape)
        return images.to(torch.float32).div_(255).sub_(mean).div_(std)

    def network_input(self, images: Tensor, device: torch.device) -> Tensor:
        """Normalised images on the device, in channels_last order, in which thin convolutions run up to 2.5 times faster on CPUs."""
        return self.normalise(images.to(device)).to(memory_format=torch.channels_last)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A random crop after padding with ``crop`` black pixels and, with ``flip``, a mirror image for every other one."""
        count, _, height, width = images.shape
        if self.crop:
            padded = F.pad(images, (self.crop,) * 4)
            top, left = torch.randint(0, 2 * self.crop + 1, (2, count), generator=generator)
            rows = (top[:, None] + torch.arange(height))[:, None, :, None]
            cols = (left[:, None] + torch.arange(width))[:, None, None, :]
            images = padded[torch.arange(count)[:, None, None, None], torch.arange(images.shape[1])[:, None, None], rows, cols]
        if self.flip:
            mirror = torch.rand(count, generator=generator) < 0.5
            images = torch.where(mirror[:, None, None, None], images.flip(3), images)
        return images

    def calibration(self, images: int, seed: int) -> Part:
        """``images`` of the training part, drawn without replacement by ``seed`` alone, in the order drawn.

        Raises:
            InputError: For more images than the training part holds.
        """
        if images > len(self.train):
            raise InputError("calibration.images", images, f"the training part of {self.name} holds {len(self.train)} images")
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        return self.train.take(order[:images])

    def undivided(self) -> Part:
        """The training and the validation images in the order in which they are stored: the training set as others use it."""
        joined = Part(*(torch.cat(pair) for pair in zip(vars(self.train).values(), vars(self.validation).values(), strict=True)))
        return joined.take(joined.index.argsort(stable=True))

    def fingerprint(self) -> str:
        """Hash of the images and labels that training sees and of how it sees them."""
        how = f"{self.mean}{self.std}{self.crop}{self.flip}"
        return sha256([how, self.train.images, self.train.labels, self.validation.images, self.validation.labels])

    def whole_fingerprint(self) -> str:
        """The same, of the test images as well."""
        return sha256([self.fingerprint(), self.test.images, self.test.labels])


def batches(part: Part, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The images and labels of a part in order, ``size`` at a time."""
    yield from zip(part.images.split(size), part.labels.split(size))


def divide(whole: Part) -> tuple[Part, Part]:
    """The training set as (train, validation)."""
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out = min(VALIDATION_IMAGES, len(whole) // 10)
    return whole.take(order[held_out:].sort().values), whole.take(order[:held_out].sort().values)


@dataclass(frozen=True)
class Dataset:
    """What the data sets of lrp share.

    Attributes:
        name: Of the data set.
        mean: Of each channel, of pixels in [0, 1].
        std: The standard deviation of each channel, of pixels in [0, 1].
        num_classes: Labels are in [0, num_classes).
        shape: Of a stored image, (height, width, channels).
        crop: Pixels by which training images are padded before they are cropped at random.
        flip: Whether training images are mirrored at random.
    """

    name: ClassVar[str]
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]
    num_classes: ClassVar[int] = 10
    shape: ClassVar[tuple[int, int, int]]

    crop: int = 4
    flip: bool = False

    def __post_init__(self) -> None:
        check_int("dataset.crop", self.crop, 0)
        check_bool("dataset.flip", self.flip)

    def load(self) -> Data:
        """Read everything into memory.

        Raises:
            InputError: For files that are missing, damaged or of another layout, and for too few images.
        """
        train, test = self._stored()
        if min(len(train), len(test)) < 10:
            raise InputError(f"dataset={self.name}: found only {len(train)} training and {len(test)} test images")
        fit, validation = divide(train)
        return Data(self.name, fit, validation, test, self.mean, self.std, self.crop, self.flip, self.num_classes)

    def _stored(self) -> tuple[Part, Part]:
        """The training and the test set as they are stored, in that order."""
        raise NotImplementedError


def _part(pixels: Tensor, labels: Tensor) -> Part:
    """Pixels (B, H, W, C) as a Part of images (B, C, 32, 32): smaller ones are padded with black."""
    images = pixels.permute(0, 3, 1, 2)
    border = (32 - images.shape[-1]) // 2
    return Part(F.pad(images, (border,) * 4).contiguous(), labels.long(), torch.arange(len(images)))
