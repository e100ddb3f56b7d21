"""Values between blocks, batch by batch on the disk."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lrp.batches import Batches
from lrp.errors import InputError
from lrp.files import write_text, write_whole
from lrp.group import ALONE, UNIT, Group
from lrp.inputs import MASK, Arguments, Inputs
from lrp.locks import lockable

SEEN_WITHIN = 60.0  # seconds until all see what one has written: a network file system may take a while


class Spool:
    """A folder with one file for each batch, which holds named tensors (B, ...)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, number: int, **tensors: Tensor) -> None:
        """Keep the tensors of one batch."""
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_whole(self.folder / f"{number}.safetensors", lambda file: save_file(held, file))

    def read(self, number: int, *names: str) -> list[Tensor]:
        """Of the tensors of one batch those with these names."""
        with safe_open(self.folder / f"{number}.safetensors", framework="pt") as file:
            return [file.get_tensor(name) for name in names]

    def remove(self) -> None:
        """Let go of everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def batches(spools: Mapping[Spool, Sequence[str]], sizes: Sequence[int], unit: int = UNIT) -> Batches:
    """Of each batch these tensors of these spools, as positional arguments, but for one that is named as the mask of tokens that count.
    ``sizes``: how many examples the batches hold; ``unit``: see ``Batches``."""
    result = _Spooled(spools, sizes, 0)
    result.unit = unit
    return result


class _Spooled(Batches):
    """Batches on the disk, from one of them on; what is dropped is not read."""

    def __init__(self, spools: Mapping[Spool, Sequence[str]], sizes: Sequence[int], first: int) -> None:
        def parts() -> Iterator[Inputs]:
            for number in range(first, len(sizes)):
                held = [(name, value) for spool, names in spools.items() for name, value in zip(names, spool.read(number, *names))]
                args, kwargs = [value for name, value in held if name != MASK], {name: value for name, value in held if name == MASK}
                yield Arguments(tuple(args), kwargs) if kwargs else tuple(args)

        super().__init__(parts, sum(sizes[first:]))
        self._spools, self._sizes, self._first = spools, sizes, first

    def drop(self, count: int) -> Batches:
        """All examples but the first ``count``, of which there are more."""
        first, length = self._first, self._length - count
        while count >= self._sizes[first]:
            count -= self._sizes[first]
            first += 1
        rest = _Spooled(self._spools, self._sizes, first)
        rest._length = length + count
        return Batches.drop(rest, count) if count else rest


class Work:
    """What is finished of a run, in a folder. As a context it is held: another call that wants the folder meanwhile is refused, where the
    file system has locks.

    Attributes:
        key: A hash of what it is made from.
        group: The processes that share the run, all of which see the folder, and hold it.
    """

    def __init__(self, folder: Path, key: str, group: Group = ALONE) -> None:
        self.folder, self.key, self.group = folder, key, group
        self._lock = FileLock(folder / f"lock-{group.rank}", timeout=0)

    def __enter__(self) -> Work:
        """Hold it.

        Raises:
            InputError: Where another call does, and where a process of the group does not see it.
        """
        try:
            with self.group.agreed():
                self._hold()
            self.group.by_first(self._begin)
            self._check_seen()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _hold(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not lockable(Path(self._lock.lock_file)):
            return
        own = {f"lock-{rank}" for rank in range(self.group.size)}
        others = [FileLock(file, timeout=0) for file in self.folder.glob("lock-*") if file.name not in own]  # of a larger group
        try:
            for lock in others if self.group.first else ():
                lock.acquire()
                lock.release()
            self._lock.acquire()
        except Timeout as error:
            raise InputError("folder", self.folder.parent, "another call is writing into it; wait for it, or give another") from error

    def _check_seen(self) -> None:
        """That all processes see the folder that the first one holds, rather than each its own.

        Raises:
            InputError: Where one does not.
        """
        if self.group.size == 1:
            return
        mark = self.folder / f"seen-{self.group.from_first(secrets.token_hex(8))}"  # a name that no file system has looked for
        self.group.by_first(lambda: write_text(mark, ""))
        with self.group.agreed():
            start = time.monotonic()
            while not mark.exists():
                if time.monotonic() - start > SEEN_WITHIN:
                    raise InputError("folder", self.folder.parent, "the processes of the group do not all see it; give one that they share")
                time.sleep(1)
        if self.group.first:
            mark.unlink()

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
        return self.group.from_first((self.folder / f"{step}.done").exists())

    def finish(self, step: str) -> None:
        """A step is finished: said last, when all processes have written their files.

        Raises:
            InputError: Where another process is elsewhere.
        """
        if any(each != step for each in self.group.all(step)):
            raise InputError("folder", self.folder.parent, "the processes of the group do not do the same; start all of them again")
        self.group.by_first(lambda: write_text(self.folder / f"{step}.done", ""))

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
