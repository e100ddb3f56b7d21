"""Calibration examples in whatever shape a network takes them, batch by batch, as often as they are asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lrp.errors import InputError, first_line
from lrp.files import sha256

Inputs = Any  # what a network is called with: a tensor, a tuple of positional arguments or a mapping of keyword arguments


def call(model: Callable[..., Any], inputs: Inputs) -> Any:
    """What a network returns: a tuple is its positional arguments, a mapping its keyword arguments, anything else the one argument."""
    if isinstance(inputs, tuple):
        return model(*inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(inputs)


def tensors(inputs: Inputs) -> list[Tensor]:
    """The tensors of a batch, in order; their first dimension runs over the examples."""
    return [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]


def examples(inputs: Inputs) -> int:
    """How many examples a batch holds."""
    return len(tensors(inputs)[0])


def on_tensors(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """The batch with a function applied to each of its tensors."""
    return tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, inputs)


def join(parts: Sequence[Inputs]) -> Inputs:
    """Batches as one batch."""
    if len(parts) == 1:
        return parts[0]
    spec = tree_flatten(parts[0])[1]
    columns = zip(*(tree_leaves(part) for part in parts), strict=True)
    return spec.unflatten([torch.cat(column) if isinstance(column[0], Tensor) else column[0] for column in columns])


class Batches:
    """Examples of one kind, read in order, again and again.

    A tensor, a tuple or a mapping of tensors is one batch that is held already; a list is one of batches; anything else that can be
    iterated (a DataLoader) is read anew at each pass, so that no more than a batch is held, provided that it gives the same examples
    each time. One that does not (a generator, a shuffling DataLoader) is held on its first pass.

    Attributes:
        labels: (B,) of the same examples, where the source gave them; None otherwise.
        more: Whether the source's batches hold more than what goes into the network.
    """

    def __init__(self, parts: Callable[[], Iterable[Inputs]], length: int, labels: Tensor | None = None, more: bool = False) -> None:
        """``parts()`` gives the batches from the beginning, ``length`` examples or more in all."""
        self._parts, self._length, self.labels, self.more = parts, length, labels, more

    @classmethod
    def of(cls, source: Any, count: int | None = None, name: str = "calibration") -> Batches:
        """The first ``count`` examples of a source, or as many as there are.

        The source is a tensor or an array (B, ...), a tuple of positional or a mapping of keyword arguments that hold tensors, a
        dataset, or something that gives such batches. A batch that is a tuple or a list holds in its first place what the network takes,
        and may hold the labels in its second. Errors call the source ``name``.

        Raises:
            InputError: For a source of another kind, without examples, or whose batches differ in more than their size.
        """
        if isinstance(source, Batches):
            return source if count is None else source.take(count)
        if type(source).__module__ == "numpy":
            source = _of_numpy(source, name)
        if isinstance(source, Dataset) and not isinstance(source, IterableDataset):
            source = DataLoader(source, batch_size=64)
        if isinstance(source, Tensor | tuple | Mapping):
            held = on_tensors(Tensor.detach, dict(source) if isinstance(source, Mapping) else source)
            try:
                _check(held, None, name)
            except InputError as error:
                hint = "; a tuple holds the arguments of one call, give batches as a list" if isinstance(held, tuple) else ""
                raise InputError(f"{error}{hint}") from None
            return cls(lambda: [held], examples(held)).take(count)
        if not isinstance(source, Iterable) or isinstance(source, str | bytes):
            raise InputError(
                name, type(source).__name__, "give a tensor, a tuple or mapping of tensors, a DataLoader or an iterable of batches"
            )
        return _read(source, count, name)

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
                    yield on_tensors(lambda leaf, passed=passed: leaf[passed:], part)

        return Batches(parts, self._length - count, None if self.labels is None else self.labels[count:], self.more)

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

    def whole(self) -> Inputs:
        """All examples as one batch: for what cannot work on less."""
        return next(self.split(self._length))

    @property
    def example(self) -> Inputs:
        """The first example alone, as a batch of one."""
        return self.take(1).whole()

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
            waiting = [on_tensors(lambda leaf, size=size: leaf[size:], batch)] if have > size else []
            have -= size
            yield on_tensors(lambda leaf, size=size: leaf[:size], batch) if waiting else batch


def _of_numpy(source: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(source)
    except (TypeError, ValueError) as error:
        raise InputError(name, type(source).__name__, f"cannot be read as a tensor ({first_line(error)})") from error


def _read(source: Iterable[Any], count: int | None, name: str) -> Batches:
    """One pass over a source of batches, which says how many examples it holds and whether it can be read again.

    Raises:
        InputError: For a source without examples, for batches that differ in kind, and later for one that gives other examples at another
            pass.
    """
    again = iter(source) is not source and (isinstance(source, list | tuple) or _same_twice(source, name))
    held: list[Inputs] = []
    digests: list[str] = []
    labels: list[Any] = []
    first, length = None, 0
    for batch in source:
        inputs, label = _split_batch(batch)
        if tensors(inputs) and all(tensor.dim() and not len(tensor) for tensor in tensors(inputs)):
            continue
        first = _check(inputs, first, name)
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
        return Batches(lambda: held, length, known, more).take(count)

    def parts() -> Iterator[Inputs]:
        batches = (_split_batch(batch)[0] for batch in source)
        for digest, inputs in zip(digests, (batch for batch in batches if examples(batch)), strict=False):
            if sha256(tensors(inputs)) != digest:
                raise InputError(f"{name}: it gives other examples at each pass; give them in a fixed order, or as a list of batches")
            yield inputs

    return Batches(parts, length, known, more).take(count)


def _same_twice(source: Iterable[Any], name: str) -> bool:
    """Whether a source begins with the same batch when it is read twice."""
    seen = []
    for _ in range(2):
        for batch in source:
            inputs, _ = _split_batch(batch)
            _check(inputs, None, name)
            seen.append(sha256(tensors(inputs)))
            break
    return len(set(seen)) == 1


def _split_batch(batch: Any) -> tuple[Inputs, Any]:
    """What the network takes of a batch, without its graph, and the labels, where there are some."""
    label = None
    if isinstance(batch, tuple | list) and batch:
        batch, label = batch[0], batch[1] if len(batch) > 1 else None
    return on_tensors(Tensor.detach, batch), label


def _check(inputs: Inputs, first: str | None, name: str) -> str:
    """What kind of examples a batch holds.

    Raises:
        InputError: For a batch without tensors, one whose tensors disagree on the number of examples, and one of another kind than
            ``first``.
    """
    held = tensors(inputs)
    if not held or any(tensor.dim() == 0 for tensor in held):
        what = "tensor of shape ()" if held else type(inputs).__name__
        raise InputError(f"{name}: a batch holds a {what}; give tensors whose first dimension runs over the examples")
    if odd := [what for what in map(odd_layout, held) if what is not None]:
        raise InputError(f"{name}: a batch holds a {odd[0]} tensor; give dense ones")
    if len({len(tensor) for tensor in held}) > 1:
        raise InputError(
            f"{name}: the tensors of a batch hold different numbers of examples, {', '.join(str(len(tensor)) for tensor in held)}"
        )
    if not len(held[0]):
        raise InputError(f"{name}: it is empty; give at least one example")
    kind = "; ".join(f"{tuple(t.shape[1:])} {str(t.dtype).removeprefix('torch.')} on {t.device}" for t in held)
    if first is not None and kind != first:
        raise InputError(f"{name}: batches differ, their examples are {first} and {kind}; pad or crop them to one shape")
    return kind


def odd_layout(tensor: Tensor) -> str | None:
    """What a tensor is called whose numbers do not lie one beside the other: nested, quantised, sparse_coo; None of any other."""
    if tensor.is_nested or tensor.is_quantized:
        return "nested" if tensor.is_nested else "quantised"
    return None if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.").strip("_")


def device_of(model: nn.Module, default: torch.device) -> torch.device:
    """The device of a network's first parameter or buffer; ``default`` for a network without any."""
    return next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), default)
