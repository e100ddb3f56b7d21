"""Text: every example is a stretch of tokens, and its labels are the tokens that follow."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lrp.dataset.base import Data, Part, divide
from lrp.errors import InputError, check_int, first_line
from lrp.files import why_unreadable

AUTO, TOKENIZER = "auto", "tokenizer.json"
BYTES = 256
TEST_SHARE = 0.1
FEWEST = 20  # stretches of training text
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextData(Data):
    """Stretches of tokens (B, T) in place of images, and of each place the token that follows as its label (B, T)."""

    def normalise(self, images: Tensor) -> Tensor:
        """The tokens as they are."""
        return images

    def network_input(self, images: Tensor, device: torch.device) -> Tensor:
        """The tokens on the device."""
        return images.to(device)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The tokens as they are."""
        return images


@dataclass(frozen=True)
class Text:
    """A text, cut into stretches of ``length`` tokens that do not overlap. The last tenth is the test set, or another text is; of the rest
    a tenth, drawn at random, is for validation.

    Attributes:
        name: Of the data set, in tables.
        path: A file in UTF-8, or a folder of ``.txt`` files, which are read in the order of their names; None: the pages of Python's own
            help, 700 kB of English that come with every Python.
        test_path: The same for the test set.
        length: Tokens of an example.
        tokenizer: A folder with a ``tokenizer.json`` (or that file), as Hugging Face's tokenizers write it; "auto": ``tokenizer_of``,
            if there is such a file; None: a token is a byte.
        tokenizer_of: The folder of the network that reads the text.
    """

    text: ClassVar[bool] = True  # tables have perplexity and divergence

    name: str = "text"
    path: str | None = None
    test_path: str | None = None
    length: int = 128
    tokenizer: str | None = AUTO
    tokenizer_of: str | None = None

    def __post_init__(self) -> None:
        check_int("dataset.length", self.length, 2)
        for option in ("path", "test_path", "tokenizer"):
            value = getattr(self, option)
            if value is not None and not isinstance(value, str):
                raise InputError(f"dataset.{option}", value, "must be a path")

    def load(self) -> Data:
        """Read and cut everything.

        Raises:
            InputError: For files that cannot be read or are not UTF-8, for a tokenizer that cannot be loaded, and for too little text.
        """
        encode, vocabulary = self._encoder()
        tokens = encode(_help_pages() if self.path is None else _read("path", self.path))
        if self.test_path is None:
            held_out = int(len(tokens) * TEST_SHARE)
            tokens, test = tokens[: len(tokens) - held_out], tokens[len(tokens) - held_out :]
        else:
            test = encode(_read("test_path", self.test_path))
        parts = [self._stretches(each) for each in (tokens, test)]
        if len(parts[0]) < FEWEST or len(parts[1]) < 1:
            raise InputError(
                "dataset.path", self.path, f"the text holds {len(tokens):,} tokens for training and {len(test):,} for the test; at least "
                f"{FEWEST} and 1 stretches of dataset.length={self.length} are needed",
            )  # fmt: skip
        train, validation = divide(parts[0])
        return TextData(self.name, train, validation, parts[1], (), (), 0, False, vocabulary)

    def _stretches(self, tokens: Tensor) -> Part:
        count = (len(tokens) - 1) // self.length
        inputs, labels = (tokens[shift : shift + count * self.length].view(count, self.length) for shift in (0, 1))
        return Part(inputs, labels, torch.arange(count))

    def _encoder(self) -> tuple[Any, int]:
        """What makes tokens (n,) int64 of a text, and how many there are.

        Raises:
            InputError: For a tokenizer that cannot be loaded.
        """
        folder = self._folder()
        if folder is None:
            return lambda text: torch.frombuffer(bytearray(text.encode("utf-8")), dtype=torch.uint8).long(), BYTES
        file = folder / TOKENIZER if folder.is_dir() else folder
        if reason := why_unreadable(file):
            raise InputError("dataset.tokenizer", self.tokenizer, f"{file.name}: {reason}")
        try:
            tokenizers = importlib.import_module("tokenizers")
            found = tokenizers.Tokenizer.from_file(str(file))
        except ImportError as error:
            raise InputError(
                "dataset.tokenizer", self.tokenizer, "it needs the package tokenizers: pip install 'lrp[transformers]'"
            ) from error
        except Exception as error:  # whatever the library raises for a file of another kind
            raise InputError("dataset.tokenizer", self.tokenizer, f"it cannot be loaded ({first_line(error)})") from error
        return lambda text: torch.tensor(found.encode(text, add_special_tokens=False).ids), found.get_vocab_size()

    def _folder(self) -> Path | None:
        """Where the tokenizer is; None: a token is a byte."""
        if self.tokenizer != AUTO:
            return None if self.tokenizer is None else Path(self.tokenizer).expanduser()
        if not isinstance(self.tokenizer_of, str):
            return None
        folder = Path(self.tokenizer_of).expanduser()
        if (folder / TOKENIZER).is_file():
            return folder
        log.warning("a token is a byte, since %s has no %s: dataset.tokenizer says where the network's own is", folder, TOKENIZER)
        return None


def _help_pages() -> str:
    """The pages of Python's own help."""
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return "\n\n".join(topics[name] for name in sorted(topics))


def _read(option: str, given: str) -> str:
    path = Path(given).expanduser()
    files: Sequence[Path] = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"dataset.{option}", given, "the folder holds no .txt file")
    texts = []
    for file in files:
        if reason := why_unreadable(file):
            raise InputError(f"dataset.{option}", given, reason if file == path else f"{file.name}: {reason}")
        try:
            texts.append(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"dataset.{option}", given, f"{file.name} is not UTF-8 text ({first_line(error)})") from error
    return "\n\n".join(texts)
