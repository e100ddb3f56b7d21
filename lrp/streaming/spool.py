"""Values between blocks, batch by batch on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from lrp.batches import Batches
from lrp.files import write_whole


class Spool:
    """A folder with one file for each batch, which holds named tensors (B, ...)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, number: int, **tensors: Tensor) -> None:
        """Keep the tensors of one batch."""
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_whole(self.folder / f"{number}.safetensors", lambda file: save_file(held, file))

    def read(self, number: int) -> dict[str, Tensor]:
        """The tensors of one batch."""
        return load_file(self.folder / f"{number}.safetensors")

    def __len__(self) -> int:
        return len([*self.folder.glob("[0-9]*.safetensors")])

    def remove(self) -> None:
        """Let go of everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def batches(spools: Sequence[tuple[Spool, str]], sizes: Sequence[int], take: int | None = None) -> Batches:
    """Of each batch one tensor of each spool, as positional arguments; ``sizes``: how many examples the batches hold."""

    def parts():  # noqa: ANN202
        for number in range(len(sizes)):
            yield tuple(_named(spool, number)[name] for spool, name in spools)

    def _named(spool: Spool, number: int) -> Mapping[str, Tensor]:
        return spool.read(number)

    return Batches(parts, sum(sizes)).take(take)
