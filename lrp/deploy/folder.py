"""Folders as transformers keeps networks in: config.json, and beside it the compressed network."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from lrp.errors import InputError, first_line
from lrp.files import why_unreadable

NAME, CONFIG = "lrp.safetensors", "config.json"


def file_to_write(model: nn.Module, path: str | Path) -> str | Path:
    """The file to write for what ``lrp.save`` was given: of a network of transformers and a folder (one that is there, or a name without a
    suffix) the file in it, beside which the network's config.json is written; anything else as it is.

    Raises:
        InputError: Where the folder cannot be made or written.
    """
    config: Any = getattr(model, "config", None)
    folder = isinstance(path, str | Path) and (Path(path).is_dir() or not Path(path).suffix and not Path(path).exists())
    if not folder or not callable(getattr(config, "save_pretrained", None)):
        return path
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        config = copy.deepcopy(config)
        config.architectures = [type(model).__name__]  # which transformers' own save_pretrained of a network says as well
        config.save_pretrained(str(path))
        generation: Any = getattr(model, "generation_config", None)
        if generation is not None:
            generation.save_pretrained(str(path))
    except Exception as error:  # whatever transformers raises for options that it does not write
        raise InputError("save", path, f"its config cannot be written ({first_line(error)})") from error
    return Path(path) / NAME


def file_to_read(path: str | Path) -> Path:
    """The file to read: of a folder the one that ``lrp.save`` wrote there.

    Raises:
        InputError: For a folder without one.
    """
    if not Path(path).is_dir():
        return Path(path)
    file = Path(path) / NAME
    if not file.is_file():
        raise InputError("load", path, f"the folder holds no {NAME}, which lrp.save writes there for networks of transformers")
    return file


def fingerprint(folder: Path) -> str | None:
    """A SHA-256 of what the config.json of a folder says, whatever its layout; None where there is none that can be read."""
    try:
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        said.pop("transformers_version", None)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def from_config(file: Path, said: Any = None) -> nn.Module:
    """The network of transformers whose config.json lies beside a file, without its weights. ``said``: the fingerprint of that config when
    the file was written, where it is known.

    Raises:
        InputError: Where there is none, where it is another one by now, or transformers cannot make it.
    """
    folder = file.parent
    if not (folder / CONFIG).exists():
        raise InputError(f"load {file}: give model=, the dense network or what makes one: there is no {CONFIG} beside the file")
    if reason := why_unreadable(folder / CONFIG):
        raise InputError(f"load {file}: {CONFIG} beside it: {reason}; give model=")
    if said is not None and said != fingerprint(folder):
        raise InputError(f"load {file}: {CONFIG} beside it is not the one that lrp.save wrote; it was changed or damaged; give model=")
    try:
        transformers: Any = importlib.import_module("transformers")
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        (name,) = config.architectures
        return _network(transformers, name)(config)
    except ImportError as error:
        raise InputError(f"load {file}: config.json beside it needs the package transformers; or give model=") from error
    except Exception as error:  # whatever transformers raises for a config that it does not understand
        raise InputError(f"load {file}: transformers cannot make the network of config.json ({first_line(error)}); give model=") from error


def _network(transformers: Any, name: str) -> type[nn.Module]:
    """The network of this name, and nothing else that transformers has.

    Raises:
        ValueError: For any other name.
    """
    found = getattr(transformers, name, None)
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise ValueError(f"{name} is no network")
    return found
