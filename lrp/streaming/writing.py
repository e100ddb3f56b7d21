"""The folder that ``compress_blocks`` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from safetensors.torch import save_file

from lrp.errors import InputError
from lrp.files import check_path, sha256_file, write_text, write_whole
from lrp.streaming.loading import INDEX, REST
from lrp.streaming.skeleton import Skeleton


def folder_to_write(path: str | Path) -> Path:
    """A folder, which need not be there.

    Raises:
        InputError: For what cannot be one.
    """
    place = check_path("folder", path)
    if file := next((each for each in (place, *place.parents) if each.is_file()), None):
        raise InputError("folder", path, f"{file} is a file, not a folder")
    return place


def block_file(number: int) -> str:
    """The name of the file that holds a block."""
    return f"block-{number:05}.safetensors"


def begin(folder: Path) -> None:
    """What an earlier call wrote is no network any more, before the first of its blocks is written over."""
    (folder / INDEX).unlink(missing_ok=True)


def finish(folder: Path, skeleton: Skeleton, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Write what is outside of the blocks, the report and, at last, the index; the report."""
    names = {name: skeleton.names[name] for name in skeleton.rest}
    rest = {name: skeleton.weights.read(name) for name in names.values()}
    write_whole(folder / REST, lambda file: save_file(rest, file))
    same = {name: held for name, held in names.items() if held != name}
    files = {name: block_file(k) for k, name in enumerate(skeleton.blocks)}
    report = pd.concat(tables, ignore_index=True).astype({"layer": str})  # blocks of a Sequential have numbers for names
    write_whole(folder / "report.csv", lambda file: report.to_csv(file, index=False))
    for file in folder.glob("block-*.safetensors"):
        if file.name not in files.values():  # of an earlier call that had more blocks
            file.unlink()
    hashes = {name: sha256_file(folder / name) for name in (REST, *files.values())}  # files that changed places are whole
    write_text(folder / INDEX, json.dumps({"blocks": files, "rest": REST, "same": same, "sha256": hashes}, indent=1))
    return report
