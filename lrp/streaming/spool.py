"""Values between blocks, batch by batch on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from lrp.batches import Batches
from lrp.errors import InputError
from lrp.files import write_text, write_whole
from lrp.locks import lockable


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

    def remove(self) -> None:
        """Let go of everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def batches(spools: Sequence[tuple[Spool, str]], sizes: Sequence[int]) -> Batches:
    """Of each batch one tensor of each spool, as positional arguments; ``sizes``: how many examples the batches hold."""

    def parts() -> Iterator[tuple[Tensor, ...]]:
        for number in range(len(sizes)):
            yield tuple(spool.read(number)[name] for spool, name in spools)

    return Batches(parts, sum(sizes))


class Work:
    """What is finished of a run, in a folder. As a context it is held: another call that wants the folder meanwhile is refused, where the
    file system has locks.

    Attributes:
        key: What it is made from.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key, self._lock = folder, key, FileLock(folder / "lock", timeout=0)

    def __enter__(self) -> Work:
        """Hold it.

        Raises:
            InputError: Where another call does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if lockable(self.folder / "lock"):
            try:
                self._lock.acquire()
            except Timeout as error:
                raise InputError("folder", self.folder.parent, "another call is writing into it; wait for it, or give another") from error
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _begin(self) -> None:
        shutil.rmtree(self._finished, ignore_errors=True)  # of a call that was killed when it removed it
        told = self.folder / "made_from.txt"
        if told.exists() and told.read_text(encoding="utf-8") != self.key and any(self.folder.glob("*.done")):  # else it was refused
            raise InputError(
                "folder", self.folder.parent, "its folder work holds unfinished work of another call; finish that, or remove it"
            )
        write_text(told, self.key)

    def __exit__(self, *what: object) -> None:
        self._lock.release()

    def done(self, step: str) -> bool:
        """Whether a step is finished."""
        return (self.folder / f"{step}.done").exists()

    def finish(self, step: str) -> None:
        """A step is finished: said last, when all of its files are there."""
        write_text(self.folder / f"{step}.done", "")

    @property
    def _finished(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}-finished")

    def remove(self) -> None:
        """Let go of everything at once: what a kill leaves passes for nothing."""
        self.folder.replace(self._finished)
        shutil.rmtree(self._finished, ignore_errors=True)

    def spool(self, name: str) -> Spool:
        """Values of this name, batch by batch."""
        return Spool(self.folder / name)
