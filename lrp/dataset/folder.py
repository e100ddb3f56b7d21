"""Images of one's own: a folder a class, as torchvision's ImageFolder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from lrp.dataset.base import SPLIT_SEED, Data, Part, divide
from lrp.errors import InputError, check_bool, check_float, check_int

TRAIN, TEST = ("train", "training"), ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class ImageFolder:
    """``path`` holds a folder a class with its images; or such folders in ``train`` and in ``test`` (or ``val``), else a fixed
    fifth of the images is the test set.

    Images become RGB; the shorter side is scaled to ``size`` pixels and the middle is cut out (null: all have one size, which
    they keep). ``mean`` and ``std`` of each channel normalise them, by default those of ImageNet; ``crop`` and ``flip`` are for
    training. All images are held in memory, three bytes a pixel.
    """

    name: str = "folder"
    path: str | None = None
    size: int | None = 224
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    crop: int = 4
    flip: bool = True
    root: str = ""  # not used: nothing is downloaded

    def __post_init__(self) -> None:
        check_int("dataset.crop", self.crop, 0)
        check_bool("dataset.flip", self.flip)
        if self.size is not None:
            check_int("dataset.size", self.size, 1)
        for option, values in (("dataset.mean", self.mean), ("dataset.std", self.std)):
            if isinstance(values, str) or len(values) != 3:
                raise InputError(option, values, "three numbers are needed, one a channel")
            for value in values:
                check_float(option, value, above=0 if option == "dataset.std" else -1e9)
        if self.path is not None and not isinstance(self.path, str):
            raise InputError("dataset.path", self.path, "the path of a folder is needed")

    def load(self) -> Data:
        """Read everything into memory. Raises InputError for a folder of another layout and for files that are no images."""
        # optional: slow to load, and only this data set reads it
        from torchvision.datasets import ImageFolder as Layout

        if self.path is None:
            raise InputError("dataset.path", self.path, "dataset=folder needs the folder of the images")
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise InputError("dataset.path", self.path, "there is no such folder")
        inside = [child.name for child in folder.iterdir() if child.is_dir()]
        train, test = ([folder / name for name in names if name in inside] for names in (TRAIN, TEST))
        if bool(train) != bool(test):
            raise InputError("dataset.path", self.path, "beside a folder train one named test or val is needed, and the reverse")
        try:
            layouts = [Layout(str(root)) for root in ([train[0], test[0]] if train else [folder])]
        except FileNotFoundError as error:
            allowed = f"a folder a class with images in it is needed ({str(error).splitlines()[0]})"
            raise InputError("dataset.path", self.path, allowed) from error
        classes = layouts[0].classes
        if len(classes) < 2:
            raise InputError("dataset.path", self.path, f"two classes are the least, but only {classes[0]} is there")
        if len(layouts) == 2 and layouts[1].classes != classes:
            raise InputError("dataset.path", self.path, f"{train[0].name} has the classes {', '.join(classes)}, {test[0].name} others")
        parts = [self._read(layout.samples) for layout in layouts]
        if len(parts) == 2 and parts[0].images.shape[1:] != parts[1].images.shape[1:]:
            raise InputError("dataset.size", self.size, "training and test images have different sizes, so one has to be given")
        if len(parts) == 1:
            order = torch.randperm(len(parts[0]), generator=torch.Generator().manual_seed(SPLIT_SEED))
            held_out = len(order) // 5
            parts = [parts[0].take(order[held_out:].sort().values), parts[0].take(order[:held_out].sort().values)]
        if min(len(part) for part in parts) < 2 or len(parts[0]) < 10:
            raise InputError("dataset.path", self.path, f"only {len(parts[0])} training and {len(parts[1])} test images were found")
        fit, validation = divide(parts[0])
        return Data(self.name, fit, validation, parts[1], tuple(self.mean), tuple(self.std), self.crop, self.flip, len(classes))

    def _read(self, samples: Sequence[tuple[str, int]]) -> Part:
        images = []
        for file, _ in tqdm(samples, desc="reading images", leave=False, disable=None):
            try:
                with Image.open(file) as image:
                    pixels = self._resize(image.convert("RGB"))
            except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
                raise InputError(f"dataset.path={self.path}: {Path(file).name} is no image ({type(error).__name__})") from error
            if images and pixels.shape != images[0].shape:
                raise InputError("dataset.size", self.size, "the images have different sizes, so one has to be given")
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
