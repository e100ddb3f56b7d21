"""Calibration examples in whatever shape a network takes them, batch by batch, as often as they are asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lrp.batch_rule import BatchRule, Forward
from lrp.batch_shapes import Shapes
from lrp.errors import InputError, first_line
from lrp.files import sha256
from lrp.group import ALONE, UNIT, Group
from lrp.inputs import Each, Inputs, call, counted, cut, examples, join, leaves, odd_layout, on_tensors, tensors

__all__ = ["Batches", "Inputs", "call", "counted", "cut", "device_of", "examples", "join", "odd_layout", "on_tensors", "tensors"]


class Batches:
    """Examples of one kind, read in order, again and again.

    A tensor, a tuple or a mapping of tensors is one batch that is held already; a list is one of batches; anything else that can be
    iterated (a DataLoader) is read anew at each pass, so that no more than a batch is held, provided that it gives the same examples
    each time. One that does not (a generator, a shuffling DataLoader) is held on its first pass.

    Attributes:
        labels: (B,) of the same examples, where the source gave them; None otherwise.
        more: Whether the source's batches hold more than what goes into the network.
        group: The processes that share these examples (``shared``), of which this one has a part.
        start: Where this part begins in all of them.
        unit: How many of them statistics and compensation look at at once, which is what the processes of a group share: a power of two.
    """

    group, start, unit = ALONE, 0, UNIT
    _all: Batches | None = None

    def __init__(self, parts: Callable[[], Iterable[Inputs]], length: int, labels: Tensor | None = None, more: bool = False) -> None:
        """``parts()`` gives the batches from the beginning, ``length`` examples or more in all."""
        self._parts, self._length, self.labels, self.more = parts, length, labels, more

    @classmethod
    def of(
        cls,
        source: Any,
        count: int | None = None,
        name: str = "calibration",
        *,
        model: nn.Module | None = None,
        inputs: Callable[[Any], Any] | None = None,
    ) -> Batches:
        """The first ``count`` examples of a source, or as many as there are.

        The source is a tensor or an array (B, ...), a tuple of positional or a mapping of keyword arguments that hold tensors, a
        dataset, or something that gives batches. Of a batch that is a tuple or a list as many entries go in as the forward of ``model``
        has to be given (of an unknown network the first), or what the first entry holds, where that is a tuple or a mapping. A tensor (B,)
        after them, or what is not a tensor, is the labels. A list of tensors of different sizes holds one of each example.

        Batches with an ``attention_mask`` (B, L) may differ in L: what is as long gets zeros behind it, or before it where the masks
        begin with zeros, up to the longest. What belongs to a decoder's tokens (``decoder_...``, ``labels``) may have another length.

        Args:
            source: The examples.
            count: How many of them; None: all.
            name: What errors call the source.
            model: The network.
            inputs: Says of each batch what the network is called with: a tensor, a tuple of positional arguments, a dict of keyword
                arguments, or a tuple and a dict; a list of tensors in it holds one of each example. Labels are then not known.

        Raises:
            InputError: For a source of another kind, without examples, or whose batches differ in more than their size; for batches of
                which more tensors may be meant for the network; and where ``inputs`` fails.
        """
        if isinstance(source, Batches):
            return source if count is None else source.take(count)
        if inputs is not None and not callable(inputs):
            raise InputError("inputs", inputs, "give a function from a batch to what the network is called with")
        rule = BatchRule(Forward() if model is None else Forward.of(model), inputs, name)
        if type(source).__module__ == "numpy":
            source = _of_numpy(source, name)
        if isinstance(source, Dataset) and not isinstance(source, IterableDataset):
            source = DataLoader(source, batch_size=64)
        if isinstance(source, Tensor | tuple | Mapping | Each):
            held, shapes = rule.whole(source), Shapes(name)
            try:
                shapes.add(held)
            except InputError as error:
                hint = "; a tuple holds the arguments of one call, give batches as a list" if isinstance(held, tuple) else ""
                raise InputError(f"{error}{hint}") from None
            held = shapes.pad(held)
            return cls(lambda: [held], examples(held)).take(count)
        if not isinstance(source, Iterable) or isinstance(source, str | bytes):
            raise InputError(
                name, type(source).__name__, "give a tensor, a tuple or mapping of tensors, a DataLoader or an iterable of batches"
            )
        return _read(source, count, name, rule)

    def __len__(self) -> int:
        return self._length

    def take(self, count: int | None) -> Batches:
        """The first ``count`` examples; None: all."""
        if count is None or count >= self._length:
            return self
        result = copy.copy(self)
        result._length, result.labels = count, None if self.labels is None else self.labels[:count]
        return result

    def drop(self, count: int) -> Batches:
        """All examples but the first ``count``, of which there are more."""

        def parts() -> Iterator[Inputs]:
            left = count
            for part in self._parts():
                passed = min(left, examples(part))
                left -= passed
                if passed < examples(part):
                    yield cut(part, passed)

        return Batches(parts, self._length - count, None if self.labels is None else self.labels[count:], self.more)

    def shared(self, group: Group, unit: int | None = None) -> Batches:
        """The part of them that this process of a group looks at, whole units of examples (None: their own), which may be none."""
        if not group.fixed:
            return self
        part = group.part(len(self), unit or self.unit)
        result = copy.copy((self.drop(part.start) if part.start else self).take(part.stop - part.start))
        result.group, result.start, result._all, result.unit = group, part.start, self, self.unit
        return result

    @property
    def total(self) -> int:
        """How many examples the processes of the group have together."""
        return len(self._all or self)

    def to(self, device: torch.device | str) -> Batches:
        """The same examples on a device, moved batch by batch as they are read."""
        labels = None if self.labels is None else self.labels.to(device)
        return Batches(lambda: (on_tensors(lambda leaf: leaf.to(device), part) for part in self._parts()), self._length, labels)

    def split(self, size: int) -> Iterator[Inputs]:
        """Batches of ``size`` examples, the last one of what is left."""
        return self._cut([min(size, self._length - start) for start in range(0, self._length, size)])

    def even(self, size: int) -> Iterator[Inputs]:
        """Batches of at most ``size`` examples whose sizes differ by one at most: a small last one would count as much."""
        count = -(-self._length // size)
        least, more = divmod(self._length, count)
        return self._cut([least + (i < more) for i in range(count)])

    def hashes(self, size: int) -> Iterator[str]:
        """Of each batch of so many examples the SHA-256 of its tensors."""
        return (sha256(tensors(batch)) for batch in self.split(size))

    def counted(self) -> Tensor | None:
        """Which tokens of all examples count, (B, L) bool, by their attention masks; None where they have none."""
        masks = [counted(part) for part in self.split(64)] if counted(self.example) is not None else []
        return torch.cat([mask for mask in masks if mask is not None]) if masks else None

    def whole(self) -> Inputs:
        """All examples as one batch: for what cannot work on less."""
        return next(self.split(self._length))

    @property
    def example(self) -> Inputs:
        """The first example alone, as a batch of one; of a part that processes share the first of all."""
        return (self._all or self).take(1).whole()

    def _cut(self, sizes: Sequence[int]) -> Iterator[Inputs]:
        """The examples in batches of these sizes."""
        waiting: list[Inputs] = []
        have, parts = 0, iter(self._parts())
        for size in sizes:
            while have < size:
                part = next(parts)
                waiting.append(part)
                have += examples(part)
            batch = join(waiting)
            waiting = [cut(batch, size)] if have > size else []
            have -= size
            yield cut(batch, 0, size) if waiting else batch


def _of_numpy(source: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(source)
    except (TypeError, ValueError) as error:
        raise InputError(name, type(source).__name__, f"cannot be read as a tensor ({first_line(error)})") from error


def _read(source: Iterable[Any], count: int | None, name: str, rule: BatchRule) -> Batches:
    """One pass over a source of batches, which says how many examples it holds and whether it can be read again.

    Raises:
        InputError: For a source without examples, for batches that differ in kind, and later for one that gives other examples at another
            pass.
    """
    again = iter(source) is not source and (isinstance(source, list | tuple) or _same_twice(source, name, rule))
    held: list[Inputs] = []
    digests: list[str] = []
    labels: list[Any] = []
    shapes, length = Shapes(name), 0
    for batch in _each(source, name):
        inputs, label = rule(batch)
        if _empty(inputs):
            continue
        shapes.add(inputs)
        labels.append(label)
        length += examples(inputs)
        if again:
            digests.append(sha256(tensors(inputs)))
        else:
            held.append(inputs)
        if count is not None and length >= count:
            break
    if not length:
        raise InputError(f"{name}: it is empty; give at least one example")
    known = torch.cat(labels) if all(isinstance(label, Tensor) and label.dim() == 1 for label in labels) else None
    known = known if known is not None and len(known) == length else None
    more = any(label is not None for label in labels)
    if not again:
        held = [shapes.pad(inputs) for inputs in held]
        return Batches(lambda: held, length, known, more).take(count)

    def parts() -> Iterator[Inputs]:
        batches = (rule(batch)[0] for batch in _each(source, name))
        for digest, inputs in zip(digests, (batch for batch in batches if not _empty(batch)), strict=False):
            if sha256(tensors(inputs)) != digest:
                raise InputError(f"{name}: it gives other examples at each pass; give them in a fixed order, or as a list of batches")
            yield shapes.pad(inputs)

    return Batches(parts, length, known, more).take(count)


def _empty(inputs: Inputs) -> bool:
    return bool(leaves(inputs)) and all((isinstance(leaf, Each) or leaf.dim()) and not len(leaf) for leaf in leaves(inputs))


def _each(source: Iterable[Any], name: str) -> Iterator[Any]:
    """The batches of a source; what it raises itself becomes a sentence.

    Raises:
        InputError: Where it cannot be read to its end.
    """
    count = 0
    try:
        for batch in source:
            yield batch
            count += 1
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name}: batch {count} cannot be read ({type(error).__name__}: {first_line(error)})") from error


def _same_twice(source: Iterable[Any], name: str, rule: BatchRule) -> bool:
    """Whether a source begins with the same batch when it is read twice."""
    seen = []
    for _ in range(2):
        for batch in _each(source, name):
            inputs, _ = rule(batch)
            Shapes(name).add(inputs)
            seen.append(sha256(tensors(inputs)))
            break
    return len(set(seen)) == 1


def device_of(model: nn.Module, default: torch.device) -> torch.device:
    """The device of a network's first parameter or buffer; ``default`` for a network without any."""
    return next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), default)
