"""Processes that share one calculation: each looks at its own part of the examples, and what they found is added up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from lrp.errors import InputError, first_line
from lrp.follower import beside_others

UNIT = 128  # examples that one process looks at at least: a batch of statistics and of compensation
LOST = "another process of this group has ended, so this one cannot go on; start all of them again"
LATE = "another process of this group has not answered in time; give torch.distributed.init_process_group a longer timeout"
PATIENCE = timedelta(days=7)  # one process trains while the others wait; of one that has ended torch knows at once
Value = TypeVar("Value")
Item = TypeVar("Item")


class Group:
    """Processes which all hold the same network and the same examples. In a group of one, nothing is sent anywhere.

    Every process of a group has to ask for the same things in the same order. What is summed is the same to the last bit in all of them.

    Attributes:
        rank: Which of the processes this one is.
        size: How many there are.
        fixed: Whether sums are to be made in parts that do not depend on how many processes there are: so it is in a group that somebody
            asked for, of one process too.
    """

    def __init__(self, processes: Any = None) -> None:
        """``processes``: a ``torch.distributed.ProcessGroup``; None: this process alone.

        Raises:
            InputError: For anything else, and for a group that this process is not in.
        """
        self._processes, self.fixed, self.rank, self.size = processes, processes is not None, 0, 1
        if processes is None:
            return
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError("group", type(processes).__name__, "call torch.distributed.init_process_group first")
        if not isinstance(processes, dist.ProcessGroup):
            raise InputError("group", type(processes).__name__, "give a process group, such as torch.distributed.group.WORLD")
        self.rank, self.size = dist.get_rank(processes), dist.get_world_size(processes)
        if self.rank < 0:
            raise InputError("group", type(processes).__name__, "this process is not in it")

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, examples: int, unit: int = UNIT) -> slice:
        """Which of so many examples this process looks at: whole units of them, one after the other, so that batches are the same
        however many processes there are. Where there are fewer units than processes some look at none."""
        units = -(-examples // unit)
        start, stop = (min(examples, units * rank // self.size * unit) for rank in (self.rank, self.rank + 1))
        return slice(start, stop)

    def total(self, values: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Of each tensor the sum over the processes. One that has nothing to add gives None, and gets the sum all the same."""
        if self.size == 1:
            return [*values]
        known = self.all([None if value is None else (tuple(value.shape), value.dtype) for value in values])
        result = list[Tensor | None]()
        for i, value in enumerate(values):
            kind = next((each[i] for each in known if each[i] is not None), None)
            if kind is None:
                result.append(None)
                continue
            mine = torch.zeros(kind[0], dtype=kind[1]) if value is None else value
            sent = mine.to(self._device).contiguous()
            with _connected():
                dist.all_reduce(sent, group=self._processes)
            result.append(sent.to(mine.device))
        return result

    def all(self, value: Value) -> list[Value]:
        """What each process has, in their order: plain values, not large ones."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _connected():
            dist.all_gather_object(found, value, group=self._processes)
        return found

    def from_first(self, value: Value) -> Value:
        """What the first process has; the others may give anything."""
        return self._from(0, value)

    def _from(self, rank: int, value: Value) -> Value:
        if self.size == 1:
            return value
        held: list[Any] = [value if self.rank == rank else None]
        with _connected():
            dist.broadcast_object_list(held, dist.get_global_rank(self._processes, rank), group=self._processes)
        return held[0]

    def shared_out(self, items: Iterable[Item], compute: Callable[[Item], Value]) -> Iterator[tuple[Item, Value]]:
        """Each item, and ``compute(item)``, which one of the processes has done for all: they take turns.

        Raises:
            InputError: In all processes, where one of them refuses.
        """
        if self.size == 1:
            yield from ((item, compute(item)) for item in items)
            return
        every = [*items]
        for start in range(0, len(every), self.size):
            part = every[start : start + self.size]
            with self.agreed():
                mine: Any = compute(part[self.rank]) if self.rank < len(part) else None
            for owner, item in enumerate(part):
                yield item, self._from(owner, mine)

    def by_first(self, make: Callable[[], Value]) -> Value:
        """What ``make()`` gives in the first process, in which alone it runs: it writes, or measures a time, which no two do alike.

        Raises:
            InputError: In all processes, where it fails there.
        """
        made = cast(Value, None)
        with self.agreed():
            if self.first:
                made = make()
        return self.from_first(made)

    @torch.no_grad()
    def equalise(self, tensors: Iterable[Tensor]) -> None:
        """Give these tensors, in place, what the first process has in them: processors may round differently."""
        for tensor in tensors if self.size > 1 else ():
            sent = tensor.detach().to(self._device).contiguous()
            with _connected():
                dist.broadcast(sent, dist.get_global_rank(self._processes, 0), group=self._processes)
            tensor.copy_(sent)

    @contextlib.contextmanager
    def agreed(self) -> Iterator[None]:
        """What one process refuses meanwhile, all refuse, with the same sentence; what fails in one (a full disk) ends the others as well.

        Raises:
            InputError: Then.
        """
        if self.size == 1:
            yield
            return
        refused: Exception | None = None
        try:
            yield
        except Exception as error:
            refused = error
        said = next((text for text in self.all(None if refused is None else _told(refused)) if text is not None), None)
        if refused is not None:
            raise refused
        if said is not None:
            raise InputError(said)

    def check_same(self, make: Callable[[], Any], what: str) -> None:
        """That ``make()`` gives the same in all processes; of one alone it is not asked for.

        Raises:
            InputError: Where they differ.
        """
        if self.size == 1:
            return
        value = make()
        if any(each != value for each in self.all(value)):
            raise InputError(f"the processes of the group have {what} that differ; give all of them the same network, examples and options")

    @property
    def _device(self) -> torch.device:
        only_gpu = dist.get_backend(self._processes) == "nccl"
        return torch.device("cuda", torch.cuda.current_device()) if only_gpu else torch.device("cpu")


ALONE = Group()


def started() -> Group:
    """The group of the processes that torchrun started together with this one; joins them. This process alone, where nobody did.

    Raises:
        InputError: Where the others cannot be reached.
    """
    if not beside_others():
        return ALONE
    if not dist.is_initialized():
        on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        try:
            if on_gpu:
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(f"torchrun: the other processes cannot be reached ({first_line(error)})") from error
    return Group(dist.group.WORLD)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """A sentence for what torch says when one of the processes is gone.

    Raises:
        InputError: Then.
    """
    try:
        yield
    except RuntimeError as error:
        said = first_line(error)[:200]
        raise InputError(f"{LATE if 'timed out' in said.lower() else LOST} ({said})") from error


def _told(error: Exception) -> str:
    """What the other processes say of it."""
    return str(error) if isinstance(error, InputError) else f"another process of this group has failed: {type(error).__name__}: {error}"
