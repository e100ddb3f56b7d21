"""Which parquet files below a folder are the training set and which the test set, in the layouts that the Hugging Face Hub has."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from lrp.dataset.splits import WORDS, foreign, split_word
from lrp.errors import InputError

log = logging.getLogger(__name__)

_COUNTED = re.compile(r"-(\d+)-of-(\d+)(?:-[0-9a-f]+)?$")  # older files end with a hash


def parquet_files(folder: Path) -> list[Path]:
    """All parquet files below a folder, by name, without hidden ones."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() == ".parquet" and not file.is_dir())
    return sorted((file for file in found if not any(map(foreign, file.relative_to(folder).parts))), key=lambda file: (file.name, file))


def find_shards(folder: Path, split: str) -> list[Path]:
    """The parquet files of one split, "train" or "test", in order: train-00000-of-00001.parquet, plain_text/train/0000.parquet,
    Train.parquet; a validation set is the test set where there is no other.

    Raises:
        InputError: Where there are none, where they are of several data sets, and where a shard that its neighbours count is absent.
    """
    files = parquet_files(folder)
    said = {file: _split_of(file.relative_to(folder)) for file in files}
    words = [word for word in WORDS[split] if (split, word) in said.values()]
    if not words:
        found = ", ".join(str(file.relative_to(folder)) for file in files[:4])
        alike = " (or validation-*.parquet)" if split == "test" else ""
        raise InputError("dataset.path", folder, f"no {split}-*.parquet{alike} in it, only {found}")
    if split == "test" and words[0] not in ("test", "testing"):
        log.info("dataset.path=%s: it has no test set, so its %s set is taken for that", folder, words[0])
    shards = [file for file in files if said[file] == (split, words[0])]
    _check_one_set(folder, split, shards)
    return shards


def _split_of(file: Path) -> tuple[str, str] | None:
    """(split, word) that the name of a file says, else that of the innermost folder that says one."""
    name = _COUNTED.sub("", file.stem).lower()
    parts = (name, *re.findall("[a-z]+", name))
    begin = next(((split, split) for split in WORDS if name.startswith(split)), None)
    folders = (folder.removesuffix(".parquet") for folder in reversed(file.parent.parts))
    return next(filter(None, map(split_word, parts)), None) or begin or next(filter(None, map(split_word, folders)), None)


def _check_one_set(folder: Path, split: str, shards: Sequence[Path]) -> None:
    """Nothing, where the files are one set.

    Raises:
        InputError: Where shards are missing or doubled, and where files may be of different sets.
    """
    names = ", ".join(str(file.relative_to(folder)) for file in shards[:4]) + (", ..." if len(shards) > 4 else "")
    counted = [match for file in shards if (match := _COUNTED.search(file.stem))]
    if len(counted) == len(shards):
        expected = {int(match[2]) for match in counted}
        present = [int(match[1]) for match in counted]
        if len(expected) > 1 or present != list(range(expected.pop())):
            raise InputError("dataset.path", folder, f"the {split} shards are incomplete or doubled: {names}")
        return
    sets = {(file.parent, _COUNTED.sub("", file.stem).rstrip("0123456789")) for file in shards}
    numbers = [re.search(r"\d*$", file.stem) for file in shards]
    present = sorted(int(match[0]) if match and match[0] else -1 for match in numbers)
    if len(shards) > 1 and (len(sets) > 1 or present not in ([*range(len(shards))], [*range(1, len(shards) + 1)])):
        raise InputError(
            "dataset.path", folder, f"several {split} sets, or shards whose numbers have gaps: {names}; name the folder of one"
        )
