"""YAML files of run folders, which others may have made: plain values, and no code is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lrp.errors import InputError, first_line

_LARGEST = 2**20  # bytes


class _Plain(yaml.SafeLoader):
    """YAML without aliases, by which a small file may stand for endless settings."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds aliases, which lrp does not write")
        return super().compose_node(parent, index)


def read_plain(file: Path) -> Any:
    """What a YAML file holds.

    Raises:
        InputError: For a file that is larger than any that lrp writes, or that cannot be read.
    """
    if file.stat().st_size > _LARGEST:
        raise InputError(f"{file} is larger than any that lrp writes; choose another folder")
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _Plain)  # a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({first_line(error)}); choose another folder") from error


def read_settings(file: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        InputError: As of ``read_plain``, and for a file that holds something else.
    """
    settings = read_plain(file)
    if not isinstance(settings, dict):
        raise InputError(f"{file} holds no settings; choose another folder")
    return settings
