"""What the names of folders and files say: which hold training images and which test images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Of several that are there the first is taken. All are in lower case: "Train" and "TRAIN" are the same word.
WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst", "val", "valid", "validation", "dev", "development", "eval", "evaluation", "holdout"),
}
# Beside the word; possessive (++, *+), so that no name of a folder makes the search long.
_FILLER = r"(?:datasets?|data|sets?|images?|imgs?|pictures|photos|samples|splits?|part|files|folder|dir|\d++)"
_SPACE = r"[\s_.-]*+"
_NAMES = {
    (split, word): re.compile(rf"(?:{_FILLER}{_SPACE})*+{word}(?:{_SPACE}{_FILLER})*+") for split, words in WORDS.items() for word in words
}
# What operating systems and tools put beside the files of a user, apart from what is hidden.
_FOREIGN = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini")


def foreign(name: str) -> bool:
    """Whether a file or folder of this name is not the user's: hidden, or put there by an operating system or a tool."""
    return name.startswith(".") or name.lower() in _FOREIGN


def split_word(name: str) -> tuple[str, str] | None:
    """("train" or "test", the word that says so) of a name such as "Train", "val2017", "test_set" or "images-train", else None."""
    text = name.lower().strip()
    return next((said for said, pattern in _NAMES.items() if pattern.fullmatch(text)), None)


def by_rank(names: Iterable[str], split: str) -> list[list[str]]:
    """The names of one split, those with one word together, in the order of ``WORDS``."""
    said = {name: split_word(name) for name in names}
    return [same for word in WORDS[split] if (same := sorted(name for name in said if said[name] == (split, word)))]
