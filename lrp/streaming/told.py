"""What blocks are told of the examples besides what the block before gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lrp.errors import InputError
from lrp.streaming.calls import Call, equal, same, unlike

Place = tuple[int, int]  # a block, and one of what its arguments hold
Calls = Sequence[tuple[str, Call]]  # of each block its name, and how it is called
DIFFERS = (
    "what it is called with besides differs between batches in what does not run over the examples; give examples of one length, or an "
    "attention_mask where tokens are padding"
)


class Told:
    """How blocks are called besides, and what of that differs between examples.

    Attributes:
        calls: Of each block, for the first example.
        names: Of each block what differs between examples, by its number among what the arguments hold: a name, which is the same wherever
            blocks read the same.
        over: Of each block the numbers of what is there for each example, and the same for all.
    """

    def __init__(self, few: Calls, more: Calls, counts: tuple[int, int], batches: Iterable[tuple[Calls, int]]) -> None:
        """``few`` and ``more``: how the blocks are called for as many examples as ``counts`` says, of which the first is the same.
        ``batches``: how they are called for each batch, and how many examples that has.

        Raises:
            InputError: For what depends on the others of a batch, or on their number, otherwise than by a row for each; and for what
                differs between batches otherwise.
        """
        self.calls: list[Call] = []
        self._over: set[Place] = set()
        for k, ((name, call), (_, other)) in enumerate(zip(few, more, strict=True)):
            (ones, spec), (twos, other_spec) = call.flat, other.flat
            if spec != other_spec:
                raise InputError("blocks", name, DIFFERS)
            rows = {i: one[:1] for i, (one, two) in enumerate(zip(ones, twos)) if _by_example(name, one, two, counts)}
            self._over |= {(k, i) for i in rows}
            self.calls.append(call.with_leaves(rows))
        differing = self._by_batch(batches)
        kinds: list[tuple[list[tuple[int, Place]], Tensor, str]] = []
        self.names: list[dict[int, str]] = [{} for _ in self.calls]
        for (k, i), seen in sorted(differing.items()):
            first = self.calls[k].flat[0][i]
            name = next((name for other, there, name in kinds if other == seen and equal(first, there)), f"{k}.{i}")
            kinds.append((seen, first, name))
            self.names[k][i] = name
        self.over = [[i for block, i in sorted(self._over - differing.keys()) if block == k] for k in range(len(self.calls))]

    def _by_batch(self, batches: Iterable[tuple[Calls, int]]) -> dict[Place, list[tuple[int, Place]]]:
        """In which batches a place differs from the first example, and there the first place that holds the same."""
        found: dict[Place, list[tuple[int, Place]]] = {}
        for number, (calls, count) in enumerate(batches):
            own: dict[Place, Tensor] = {}
            for place, value in self._differing(calls, count):
                like = next((other for other, there in own.items() if equal(there, value)), place)
                own.setdefault(like, value)
                found.setdefault(place, []).append((number, like))
        return found

    def values(self, calls: Calls, count: int) -> dict[str, Tensor]:
        """By their names what differs, in a batch of ``count`` examples: (count, ...)."""
        found: dict[str, Tensor] = {}
        for (_, call), names in zip(calls, self.names, strict=True):
            leaves, _ = call.flat
            for i, name in names.items():
                if name not in found:
                    found[name] = _rows(leaves[i], count)
        return found

    def _differing(self, calls: Calls, count: int) -> Iterator[tuple[Place, Tensor]]:
        """What the blocks are called with and were not for the first example.

        Raises:
            InputError: As ``Told``.
        """
        for k, ((name, call), known) in enumerate(zip(calls, self.calls, strict=True)):
            (leaves, spec), (before, known_spec) = call.flat, known.flat
            if spec != known_spec:
                raise InputError("blocks", name, DIFFERS)
            for i, (leaf, there) in enumerate(zip(leaves, before)):
                if (k, i) not in self._over:
                    if not same(leaf, there):
                        raise InputError("blocks", name, DIFFERS)
                elif not isinstance(leaf, Tensor) or leaf.shape[1:] != there.shape[1:] or len(leaf) not in (1, count, count + 1):
                    raise InputError("blocks", name, DIFFERS)
                elif not bool((_rows(leaf, count) == there).all()):
                    yield (k, i), _rows(leaf, count)


def _rows(leaf: Tensor, count: int) -> Tensor:
    """A row for each of ``count`` examples: the last may be of the witness, and one may stand for all."""
    return leaf.expand(count, *leaf.shape[1:]) if len(leaf) == 1 else leaf[:count]


def _by_example(name: str, few: object, more: object, counts: tuple[int, int]) -> bool:
    """Whether something is there for each example; ``few`` and ``more``: of so many of them.

    Raises:
        InputError: As ``Told``.
    """
    if not isinstance(few, Tensor) or not isinstance(more, Tensor):
        if isinstance(few, Tensor) or isinstance(more, Tensor):
            raise InputError("blocks", name, DIFFERS)
        if wrong := unlike(few, more):
            raise InputError("blocks", name, wrong)
        return False
    if few.dim() and few.shape[1:] == more.shape[1:] and (len(few), len(more)) == counts:
        near = torch.allclose(few[0], more[0], equal_nan=True) if few.is_floating_point() else equal(few[0], more[0])
        if not near:
            raise InputError("blocks", name, "what it is called with besides depends on the other examples of a batch")
        return True
    if not same(few, more):
        raise InputError("blocks", name, "what it is called with besides depends on the examples otherwise than by a row for each")
    return False


def shared(names: Mapping[int, str]) -> dict[str, list[int]]:
    """By each name the numbers of what has it."""
    return {name: [i for i, other in names.items() if other == name] for name in dict.fromkeys(names.values())}
