"""Your own images: a folder with one folder per class, as torchvision's ImageFolder expects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from lrp.dataset.base import SPLIT_SEED, Data, Part, divide
from lrp.errors import InputError, check_bool, check_float, check_int, first_line

TRAIN, TEST = ("train", "training"), ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class ImageFolder:
    """Your own images: ``path`` holds one folder of images per class; or such folders in ``train`` and in ``test`` (or ``val``), else
    a fixed fifth of the images is the test set. Images become RGB; all are held in memory, three bytes per pixel.

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
        from torchvision.datasets import ImageFolder as Layout  # optional: slow to load, and only this data set reads it

        if self.path is None:
            raise InputError("dataset.path", self.path, "dataset=folder needs the folder of the images")
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise InputError("dataset.path", self.path, "no such folder")
        inside = [child.name for child in folder.iterdir() if child.is_dir()]
        train, test = ([folder / name for name in names if name in inside] for names in (TRAIN, TEST))
        if bool(train) != bool(test):
            raise InputError("dataset.path", self.path, "needs both a folder train and a folder test (or val)")
        try:
            layouts = [Layout(str(root)) for root in ([train[0], test[0]] if train else [folder])]
        except FileNotFoundError as error:
            allowed = f"must hold one folder of images per class ({first_line(error)})"
            raise InputError("dataset.path", self.path, allowed) from error
        classes = layouts[0].classes
        if len(classes) < 2:
            raise InputError("dataset.path", self.path, f"must hold at least two classes, found only {classes[0]}")
        if len(layouts) == 2 and layouts[1].classes != classes:
            raise InputError("dataset.path", self.path, f"{train[0].name} has the classes {', '.join(classes)}, {test[0].name} others")
        parts = [self._read(layout.samples) for layout in layouts]
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

    def _read(self, samples: Sequence[tuple[str, int]]) -> Part:
        images = []
        for file, _ in tqdm(samples, desc="reading images", leave=False, disable=None):
            try:
                with Image.open(file) as image:
                    pixels = self._resize(image.convert("RGB"))
            except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
                raise InputError(f"dataset.path={self.path}: {Path(file).name} is not an image ({type(error).__name__})") from error
            if images and pixels.shape != images[0].shape:
                raise InputError("dataset.size", self.size, "the images have different sizes, so choose one")
            images.append(pixels)
        labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
        return Part(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), labels, torch.arange(len(labels)))

    def _resize(self, image: Image.Image) -> np.ndarray:
        if self.size is not None and image.size != (self.size, self.size):
            scale = self.size / min(image.size)
            width, height = (max(self.size, round(side * scale)) for side in image.size)
            left, top = (width - self.size) // 2, (height - self.size) // 2
            image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + self.size, top + self.size))
        return np.asarray(image)
