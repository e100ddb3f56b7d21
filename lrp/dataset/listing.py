"""Which images lie below the folders of classes: those that torchvision's ImageFolder finds, in its order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lrp.dataset.images import SUFFIXES
from lrp.dataset.splits import foreign
from lrp.errors import InputError


@dataclass(frozen=True)
class Listing:
    """The images below one folder that holds a folder per class.

    Attributes:
        folder: Where they lie.
        classes: The names of the folders, sorted.
        samples: Each image with the place of its class in ``classes``.
        skipped: The names of files in the folders of classes that do not end as images do.
    """

    folder: Path
    classes: Sequence[str]
    samples: Sequence[tuple[Path, int]]
    skipped: Sequence[str]


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without hidden ones and those that systems make."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not foreign(entry.name))


def holds_images(folder: Path) -> bool:
    """Whether images lie in a folder itself, not in folders below it."""
    return any(_is_image(entry.name) for entry in os.scandir(folder) if not entry.is_dir())


def list_images(folder: Path, seen: dict[tuple[int, int], Path]) -> Listing:
    """The images in the folders of ``folder``, of which each is a class.

    Args:
        folder: Where the folders of the classes lie.
        seen: The folders that were looked into before, by device and inode; those below ``folder`` are added.

    Raises:
        InputError: Where a class holds no images, or only folders that do, and where links lead into one folder twice; the text ends
            a sentence.
    """
    classes, samples, skipped, nested = subfolders(folder), [], [], []
    if not classes:
        raise InputError(f"must hold one folder of images per class, found no folder in {folder.name}")
    for number, name in enumerate(classes):
        files = _walk(folder / name, seen)
        found = [file for file in files if _is_image(file.name)]
        if not found:
            raise InputError(
                f"must hold one folder of images per class, found no image in {folder.name}/{name} (the suffixes are {' '.join(SUFFIXES)})"
            )
        if all(file.parent != folder / name for file in found):
            nested.append(name)
        samples += [(file, number) for file in found]
        skipped += [file.name for file in files if not _is_image(file.name)]
    if nested:  # most likely the parts of a data set under names that nobody knows, and each class of it lies in all of them
        raise InputError(
            f"must hold one folder of images per class, but {nested[0]} holds folders of images; name the parts of a data set train "
            "and test, or put the images of a class into its folder itself"
        )
    return Listing(folder, classes, samples, skipped)


def _walk(top: Path, seen: dict[tuple[int, int], Path]) -> list[Path]:
    """The files below a folder, also behind links, in the order of torchvision: by folder, then by name.

    Raises:
        InputError: For a folder that was seen before: its images would count twice, or for ever.
    """

    def stop(error: OSError) -> None:  # a folder that cannot be read would be left out
        raise error

    found = []
    for root, folders, files in os.walk(top, followlinks=True, onerror=stop):
        status = os.stat(root)
        before = seen.setdefault((status.st_dev, status.st_ino), Path(root))
        if before != Path(root):
            names = " and ".join(os.path.relpath(folder, top) for folder in (root, before))
            raise InputError(f"{top}: {names} are one folder (a link?), so its images would be read twice")
        folders[:] = [name for name in folders if not foreign(name)]
        found.append((root, sorted(name for name in files if not foreign(name))))
    return [Path(root, name) for root, files in sorted(found) for name in files]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not foreign(name)
