"""Images in parquet files, in the layout of the Hugging Face Hub."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lrp.dataset.shards import find_shards
from lrp.errors import InputError, first_line
from lrp.files import why_unreadable

MOST_ROWS = 2_000_000  # of a split: all of its images are held in memory
MOST_BYTES = 2**20  # of an image as it is stored, on average; that of a data set of lrp has 3 kilobytes of pixels
BATCH = 1024  # rows that are read together


@functools.lru_cache(maxsize=4)  # the jobs of a multirun share a process, and decoding 60,000 PNG files takes seconds
def _read_parquet(path: str, split: str, shape: tuple[int, int, int], classes: int) -> tuple[Tensor, Tensor]:
    """All images (B, H, W, C) uint8 and labels (B,) int64 of one split.

    Raises:
        InputError: For files that cannot be read, of other columns, or whose images or labels are not what the data set has.
    """
    images, labels = [], []
    for file in find_shards(Path(path), split):
        said = f"dataset.path={path}: {file.name}"
        table, column = _open(file, said)
        if len(labels) + table.metadata.num_rows > MOST_ROWS:
            raise InputError(f"{said} has {table.metadata.num_rows:,} rows; a {split} set may have {MOST_ROWS:,}")
        labels += _labels(table, said, classes)
        rows = tqdm(_images(table, column, said), desc=f"reading {file.name}", leave=False, disable=None, total=table.metadata.num_rows)
        for number, stored in enumerate(rows):
            try:
                images.append(_pixels(stored, shape))
            except InputError as error:
                wanted = " x ".join(str(n) for n in shape)
                reason = f"row {number} of {file.name} is not an image of {wanted}: it {error}"
                raise InputError(f"dataset.path={path}: {reason}") from error
    if not images:
        raise InputError(f"dataset.path={path}: the {split} files hold no images")
    return torch.from_numpy(np.stack(images)), torch.tensor(labels, dtype=torch.int64)


def _open(file: Path, said: str) -> tuple[Any, str]:
    """A file of which only the footer is read, and the name of its column of images.

    Raises:
        InputError: For a file that is not parquet or has other columns, and for images larger than ``MOST_BYTES``.
    """
    import pyarrow  # optional: slow to load, and only files of this format need it
    import pyarrow.parquet  # optional

    if reason := why_unreadable(file):
        raise InputError(f"{said} cannot be read as parquet ({reason})")
    try:
        schema = pyarrow.parquet.read_schema(file)
        names = schema.names
        column = next((name for name in ("img", "image") if names.count(name) == 1), None)
        kind = None if column is None else schema.field(column).type
        if column is None or kind is None or not pyarrow.types.is_struct(kind) or "bytes" not in kind.names or names.count("label") != 1:
            needed = "img or image ({bytes, path}) and label"
            raise InputError(f"{said} has the columns {', '.join(names)}, but needs {needed}")
        # One value that many rows share stays one: a file of kilobytes could grow to any size otherwise.
        table = pyarrow.parquet.ParquetFile(file, read_dictionary=[f"{column}.bytes"])
    except InputError:
        raise
    except Exception as error:  # whatever pyarrow raises for a damaged footer
        raise InputError(f"{said} cannot be read as parquet ({first_line(error)})") from error
    footer = table.metadata
    for group in map(footer.row_group, range(footer.num_row_groups)):
        if group.total_byte_size > MOST_BYTES * max(1, group.num_rows):  # not by column: pyarrow ends the process where a footer is damaged
            reason = f"holds {group.total_byte_size:,} bytes for {group.num_rows:,} images"
            raise InputError(f"{said} {reason}; {MOST_BYTES:,} an image are allowed")
    return table, column


def _labels(table: Any, said: str, classes: int) -> list[int]:
    """The labels of all rows.

    Raises:
        InputError: For a damaged file, and for labels that are no integers in [0, ``classes``).
    """
    try:
        labels = table.read(columns=["label"])["label"].to_pylist()
    except Exception as error:  # whatever pyarrow raises for damaged pages
        raise InputError(f"{said} cannot be read as parquet ({first_line(error)})") from error
    if not all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < classes for value in labels):
        raise InputError(f"{said} has labels that are not integers in [0, {classes - 1}]")
    return labels


def _images(table: Any, column: str, said: str) -> Iterator[object]:
    """The image of each row as it is stored.

    Raises:
        InputError: For a damaged file.
    """
    batches = table.iter_batches(BATCH, columns=[f"{column}.bytes"])
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # whatever pyarrow raises for damaged pages
            raise InputError(f"{said} cannot be read as parquet ({first_line(error)})") from error
        if batch is None:
            return
        stored = batch.column(0).flatten()[0]
        values = stored.dictionary.to_pylist()
        yield from (None if place is None else values[place] for place in stored.indices.to_pylist())


def _pixels(stored: object, shape: tuple[int, int, int]) -> np.ndarray:
    """The pixels (H, W, C) of an encoded image, whose size is compared before it is decoded.

    A palette is expanded, and black and white becomes grey; any other conversion would guess.

    Raises:
        InputError: For what is not an image of this shape; the text goes on after "it".
    """
    from lrp.dataset.images import decode, open_image, said  # optional: PIL is needed for files of this format alone

    if not isinstance(stored, bytes):
        raise InputError("has no bytes")
    image = open_image(stored)
    grey = shape[2] == 1
    known = ("L", "1", "P") if grey else ("RGB", "P")
    if image.mode not in known or image.size != (shape[1], shape[0]) or (image.mode == "P" and "transparency" in image.info):
        raise InputError(f"is {said(image)}" + (", with transparency" if "transparency" in image.info else ""))
    if image.mode != "P":
        return np.asarray(decode(image, "L" if grey else "RGB")).reshape(shape)
    pixels = np.asarray(decode(image, "RGB"))
    if not grey:
        return pixels
    if not (pixels == pixels[:, :, :1]).all():
        raise InputError(f"is {said(image)}, with colours")
    return pixels[:, :, :1]
