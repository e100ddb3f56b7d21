"""Images in parquet files, in the layout of the Hugging Face Hub."""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lrp.errors import InputError, first_line


def _shards(folder: Path, split: str) -> list[Path]:
    """All parquet files of one split, in order.

    Raises:
        InputError: Where there are none, or a shard that its neighbours count is absent.
    """
    files = sorted((f for f in folder.rglob("*.parquet") if f.name.startswith(split)), key=lambda f: f.name)
    if not files:
        raise InputError("dataset.path", folder, f"no {split}-*.parquet in it")
    counts = [re.search(r"-(\d+)-of-(\d+)\.parquet$", file.name) for file in files]
    numbered = [match for match in counts if match]
    if len(numbered) == len(files):
        expected = {int(match[2]) for match in numbered}
        present = [int(match[1]) for match in numbered]
        if len(expected) > 1 or present != list(range(expected.pop())):
            raise InputError("dataset.path", folder, f"the {split} shards are incomplete or doubled: {', '.join(f.name for f in files)}")
    return files


@functools.lru_cache(maxsize=4)  # the jobs of a multirun share a process, and decoding 60,000 PNG files takes seconds
def _read_parquet(path: str, split: str, shape: tuple[int, int, int], classes: int) -> tuple[Tensor, Tensor]:
    """All images (B, H, W, C) uint8 and labels (B,) int64 of one split.

    Raises:
        InputError: For files that cannot be read, of other columns, or whose images or labels are not what the data set has.
    """
    import pyarrow  # optional: slow to load, and only files of this format need these three
    import pyarrow.parquet  # optional
    from PIL import Image  # optional

    images, labels = [], []
    for file in _shards(Path(path), split):
        try:
            table = pyarrow.parquet.read_table(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"dataset.path={path}: {file.name} cannot be read as parquet ({first_line(error)})") from error
        column = next((name for name in ("img", "image") if name in table.column_names), None)
        if column is None or "label" not in table.column_names or not pyarrow.types.is_struct(table.schema.field(column).type):
            found = ", ".join(table.column_names)
            raise InputError(
                f"dataset.path={path}: {file.name} has the columns {found}, but needs img or image ({{bytes, path}}) and label"
            )
        label = table["label"].to_pylist()
        if not all(isinstance(value, int) and 0 <= value < classes for value in label):
            raise InputError(f"dataset.path={path}: {file.name} has labels that are not integers in [0, {classes - 1}]")
        rows = tqdm(table[column].to_pylist(), desc=f"reading {file.name}", leave=False, disable=None)
        for number, row in enumerate(rows):
            try:
                pixels = np.asarray(Image.open(io.BytesIO(row["bytes"]))).reshape(shape)
            except (OSError, KeyError, TypeError, ValueError) as error:
                wanted = " x ".join(str(n) for n in shape)
                raise InputError(f"dataset.path={path}: row {number} of {file.name} is not an image of {wanted}") from error
            images.append(pixels)
        labels.extend(label)
    if not images:
        raise InputError(f"dataset.path={path}: the {split} files hold no images")
    return torch.from_numpy(np.stack(images)), torch.tensor(labels, dtype=torch.int64)
