"""Data sets that torchvision downloads, or that lie in a folder as parquet files in the layout of the Hugging Face Hub."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lrp.dataset.base import Dataset, Part, _part
from lrp.dataset.parquet import _read_parquet
from lrp.dataset.shards import parquet_files
from lrp.errors import InputError, first_line
from lrp.files import why_unreadable

FOLDERS = ("MNIST", "cifar-10-batches-py")  # where torchvision looks


@dataclass(frozen=True)
class Downloaded(Dataset):
    """A data set that torchvision knows, with its options besides those of ``Dataset``.

    Attributes:
        path: A folder of parquet files, or one that torchvision filled; None: torchvision downloads into ``root``.
        root: Where torchvision downloads to.
    """

    path: str | None = None
    root: str = "outputs/data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None and not isinstance(self.path, str):
            raise InputError("dataset.path", self.path, "must be the path of a folder")

    def _stored(self) -> tuple[Part, Part]:
        """The training and the test set as they are stored, in that order.

        Raises:
            InputError: For a folder that does not exist.
        """
        if self.path is None:
            return self._torchvision(Path(self.root), download=True)
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise InputError("dataset.path", self.path, "no such folder")
        if parquet_files(folder):
            return self._parquet(str(folder), "train"), self._parquet(str(folder), "test")
        return self._torchvision(folder, download=False)

    def _parquet(self, folder: str, split: str) -> Part:
        images, labels = _read_parquet(folder, split, self.shape, self.num_classes)
        return _part(images, labels)

    def _torchvision(self, root: Path, download: bool) -> tuple[Part, Part]:
        import torchvision  # optional: seconds to load, and only these data sets need it

        self._check_files(root)
        kind = getattr(torchvision.datasets, self.name.upper())
        try:
            stored = [kind(str(root), train=train, download=download) for train in (True, False)]
        except Exception as error:  # torchvision raises RuntimeError, URLError, OSError, ... for one and the same cause
            reason = first_line(error)
            allowed = f"torchvision could not {'download' if download else 'read'} {self.name} in {root} ({reason})"
            hint = "; dataset.path may name a folder of parquet files instead" if download else ", nor are there parquet files"
            raise InputError("dataset.path", self.path, allowed + hint) from error
        parts = []
        for each in stored:
            pixels, labels = np.asarray(each.data), torch.as_tensor(each.targets)
            if pixels.shape[1:3] != self.shape[:2] or pixels.size != len(labels) * math.prod(self.shape):
                raise InputError("dataset.path", root, f"it holds pixels of shape {pixels.shape} for {len(labels)} labels, not {self.name}")
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise InputError("dataset.path", root, f"it holds labels that are not integers in [0, {self.num_classes - 1}]")
            parts.append(_part(torch.from_numpy(pixels.reshape(-1, *self.shape)), labels))
        return parts[0], parts[1]

    def _check_files(self, root: Path) -> None:
        """torchvision opens what it finds, and waits for ever where that is a named pipe.

        Raises:
            InputError: For anything but files and folders where torchvision looks.
        """
        for folder in (name for name in FOLDERS if (root / name).is_dir()):
            for file in (root / folder).rglob("*"):
                if not file.is_dir() and (reason := why_unreadable(file)):
                    raise InputError("dataset.path", self.path, f"torchvision cannot read {self.name} in {root} ({file.name}: {reason})")
