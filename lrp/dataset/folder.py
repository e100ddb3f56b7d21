"""Your own images: a folder with one folder per class, as torchvision's ImageFolder expects."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from lrp.dataset.base import SPLIT_SEED, Data, Part, divide
from lrp.dataset.images import MOST_PIXELS, decode, open_image, said
from lrp.dataset.listing import Listing, holds_images, list_images, subfolders
from lrp.dataset.splits import by_rank, split_word
from lrp.errors import InputError, check_bool, check_float, check_int, some
from lrp.files import why_unreadable

log = logging.getLogger(__name__)

CLASSES = ("train", "valid")  # words of parts that are names of classes, too: a train is a vehicle, and an example may be valid or not


@dataclass(frozen=True)
class ImageFolder:
    """Your own images: ``path`` holds one folder of images per class; or such folders in ``train`` and in ``test`` (or ``val``), else
    a fixed fifth of the images is the test set. Images become RGB; all are held in memory, three bytes per pixel.

    Read are JPEG, PNG, PPM, BMP, TIFF and WEBP of 8 bits a channel or fewer, by the suffixes that torchvision knows. Hidden files,
    and those that systems leave (Thumbs.db), are not looked at. "Train", "training_set", "dev" and their like are understood.

    Attributes:
        name: Of the data set, in tables.
        path: The folder of the images.
        size: Pixels: the shorter side is scaled to it and the middle is cut out; None: all images have one size, which they keep.
        mean: Of each channel, of pixels in [0, 1]; by default that of ImageNet.
        std: The standard deviation of each channel, of pixels in [0, 1]; by default that of ImageNet.
        crop: Pixels by which training images are padded before they are cropped at random.
        flip: Whether training images are mirrored at random.
    """

    name: str = "folder"
    path: str | None = None
    size: int | None = 224
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    crop: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        check_int("dataset.crop", self.crop, 0)
        check_bool("dataset.flip", self.flip)
        if self.size is not None:
            check_int("dataset.size", self.size, 1)
        for option, values in (("mean", self.mean), ("std", self.std)):
            if isinstance(values, str) or len(values) != 3:
                raise InputError(f"dataset.{option}", values, "must be three numbers, one per channel")
            for value in values:
                check_float(f"dataset.{option}", value, above=0 if option == "std" else -1e9)
            object.__setattr__(self, option, tuple(values))
        if self.path is not None and not isinstance(self.path, str):
            raise InputError("dataset.path", self.path, "must be the path of a folder")

    def load(self) -> Data:
        """Read everything into memory.

        Raises:
            InputError: For a folder of another layout, files that are not images, images of different sizes and too few images.
        """
        if self.path is None:
            raise InputError("dataset.path", self.path, "dataset=folder needs the folder of the images")
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise InputError("dataset.path", self.path, "no such folder")
        listings = self._listings(folder)
        classes = listings[0].classes
        if len(classes) < 2:
            raise InputError("dataset.path", self.path, f"must hold at least two classes, found only {classes[0]}")
        if len(listings) == 2 and listings[1].classes != classes:
            names = [listing.folder.name for listing in listings]
            raise InputError("dataset.path", self.path, f"{names[0]} has the classes {', '.join(classes)}, {names[1]} others")
        parts = [self._read(listing.samples) for listing in listings]
        if len(parts) == 2 and parts[0].images.shape[1:] != parts[1].images.shape[1:]:
            raise InputError("dataset.size", self.size, "training and test images have different sizes, so choose one")
        if len(parts) == 1:
            order = torch.randperm(len(parts[0]), generator=torch.Generator().manual_seed(SPLIT_SEED))
            held_out = len(order) // 5
            parts = [parts[0].take(order[held_out:].sort().values), parts[0].take(order[:held_out].sort().values)]
        if min(len(part) for part in parts) < 2 or len(parts[0]) < 10:
            raise InputError("dataset.path", self.path, f"found only {len(parts[0])} training and {len(parts[1])} test images")
        fit, validation = divide(parts[0])
        return Data(self.name, fit, validation, parts[1], tuple(self.mean), tuple(self.std), self.crop, self.flip, len(classes))

    def _listings(self, folder: Path) -> list[Listing]:
        """The images of the training and of the test folder, or of the one folder that holds both.

        Raises:
            InputError: For one of the two alone, for two that say the same, and as ``list_images``.
        """
        try:
            roots = _parts(folder)
            seen: dict[tuple[int, int], Path] = {}
            listings = [list_images(root, seen) for root in roots or [folder]]
        except InputError as error:
            raise InputError("dataset.path", self.path, str(error)) from error
        except OSError as error:
            raise InputError("dataset.path", self.path, f"it cannot be read ({error.strerror}: {error.filename})") from error
        if skipped := [name for listing in listings for name in listing.skipped]:
            log.info("dataset.path=%s: files without the suffix of an image are not read: %s", self.path, some(skipped))
        return listings

    def _read(self, samples: Sequence[tuple[Path, int]]) -> Part:
        images = []
        for file, _ in tqdm(samples, desc="reading images", leave=False, disable=None):
            try:
                if reason := why_unreadable(file):
                    raise InputError(f"is not an image: {reason}")
                with open_image(file) as image:
                    self._check_scaled(image)
                    pixels = self._resize(decode(image, "RGB"))
            except InputError as error:
                raise InputError(f"dataset.path={self.path}: {file.parent.name}/{file.name} {error}") from error
            if images and pixels.shape != images[0].shape:
                raise InputError("dataset.size", self.size, "the images have different sizes, so choose one")
            images.append(pixels)
        labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
        return Part(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), labels, torch.arange(len(labels)))

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (width, height) to which an image is scaled before its middle is cut out."""
        assert self.size is not None
        scale = self.size / min(size)
        width, height = (max(self.size, round(side * scale)) for side in size)
        return width, height

    def _check_scaled(self, image: Image.Image) -> None:
        """A line of pixels grows to gigabytes.

        Raises:
            InputError: For an image that would have more than ``MOST_PIXELS`` once its shorter side is scaled; the text ends a sentence.
        """
        if self.size is None:
            return
        width, height = self._scaled(image.size)
        if width * height > MOST_PIXELS:
            raise InputError(f"is {said(image)}, which dataset.size={self.size} would scale to {width} x {height}; cut it first")

    def _resize(self, image: Image.Image) -> np.ndarray:
        if self.size is not None and image.size != (self.size, self.size):
            width, height = self._scaled(image.size)
            left, top = (width - self.size) // 2, (height - self.size) // 2
            image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + self.size, top + self.size))
        return np.asarray(image)


def _parts(folder: Path) -> list[Path]:
    """The folders of the training and of the test images; [] where the classes lie in ``folder`` itself.

    Raises:
        InputError: For one of the two alone, and for two names that say the same; the text ends a sentence.
    """
    names = subfolders(folder)
    train, test = (by_rank(names, split) for split in ("train", "test"))
    if not train and not test:
        return []
    if not train or not test:
        alone = [name for same in train or test for name in same]
        if all((split_word(name) or ("", ""))[1] in CLASSES and holds_images(folder / name) for name in alone):
            return []
        raise InputError(f"has {some(alone)}, but needs both a folder train and a folder test (or val)")
    for same in (train[0], test[0]):
        if len(same) > 1:
            raise InputError(f"has the folders {' and '.join(same)}, which say the same; leave one")
    roots = [train[0][0], test[0][0]]
    if unread := [name for name in names if name not in roots]:
        log.info("%s: the images are those in %s and %s; %s is not read", folder, *roots, some(unread))
    return [folder / name for name in roots]
