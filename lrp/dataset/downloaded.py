"""Data sets that torchvision downloads, or that lie in a folder as parquet files in the layout of the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lrp.dataset.base import Dataset, Part, _part
from lrp.dataset.parquet import _read_parquet
from lrp.errors import InputError, first_line


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
        if any(folder.rglob("*.parquet")):
            return self._parquet(str(folder), "train"), self._parquet(str(folder), "test")
        return self._torchvision(folder, download=False)

    def _parquet(self, folder: str, split: str) -> Part:
        images, labels = _read_parquet(folder, split, self.shape, self.num_classes)
        return _part(images, labels)

    def _torchvision(self, root: Path, download: bool) -> tuple[Part, Part]:
        import torchvision  # optional: seconds to load, and only these data sets need it

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
            pixels = np.asarray(each.data).reshape(-1, *self.shape)
            parts.append(_part(torch.from_numpy(pixels), torch.as_tensor(each.targets)))
        return parts[0], parts[1]
