"""What kind of examples the batches of a source hold, and how those are padded that differ in length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten

from lrp.errors import InputError
from lrp.inputs import DECODER, Each, Inputs, arguments, counted, leaves, odd_layout, pad, tensors

LABELS, IGNORED = "labels", -100  # as transformers call them, and what its losses pass over


@dataclass
class Shapes:
    """What kind of examples the batches of a source hold, and how those are padded that differ in length.

    Where a decoder's tokens (``decoder_...``, and ``labels`` beside them) are as many as those of the attention mask, these get one more
    place of padding: layers and outputs are known to be of the mask's tokens by how many places they have.

    Attributes:
        name: What errors call the source.
        first: What the first batch holds of one example, and the length of its attention mask.
        form: The arguments that the first batch gives, and what of these is not a tensor.
        padded: Which of its tensors differ in length between batches, as their attention masks do.
        decoded: Which are of a decoder's tokens.
        lengths: Of those that may be, how many tokens each has at the most.
        longest: The longest mask.
        starts: Whether a mask begins with a token that does not count.
        ends: Whether one ends with such a token.
    """

    name: str
    first: tuple[list[_One], int | None] | None = None
    form: tuple[Any, list[Any]] | None = None
    padded: set[int] = field(default_factory=set)
    decoded: set[int] = field(default_factory=set)
    lengths: dict[int, int] = field(default_factory=dict)
    longest: int = 0
    starts: bool = False
    ends: bool = False

    def add(self, inputs: Inputs) -> None:
        """Look at a batch.

        Raises:
            InputError: For a batch without tensors, one whose tensors disagree on the number of examples, and one of another kind than the
                first.
        """
        _check(inputs, self.name)
        ones, mask = [_One.of(leaf) for leaf in leaves(inputs)], counted(inputs)
        length = None if mask is None else mask.shape[1]
        if mask is not None and mask.shape[1]:
            self.longest = max(self.longest, mask.shape[1])
            self.starts |= not bool(mask[:, 0].all())
            self.ends |= not bool(mask[:, -1].all())
        if self.first is None:
            self.first = ones, length
        before, before_length = self.first
        same_kind = [one.kind for one in ones] == [one.kind for one in before]
        apart = [one.shape != other.shape for one, other in zip(ones, before)]
        may_be, are = _of_decoder(inputs)
        for i in may_be if same_kind else ():
            self.lengths[i] = max(self.lengths.get(i, 0), ones[i].shape[0])
        self.decoded |= {i for i in are if same_kind and ones[i].shape[1:] == before[i].shape[1:]}
        differ = {i for i, other in enumerate(apart) if other and i not in self.decoded}
        if not same_kind or not all(ones[i].may_be_padded(length) == before[i].may_be_padded(before_length) is not None for i in differ):
            text = f"batches differ, their examples are {_said(before)} and {_said(ones)}; pad or crop them to one shape"
            masked = ", or give dicts of keyword arguments with an attention_mask: these are padded" if same_kind and length is None else ""
            raise InputError(f"{self.name}: {text}{masked}")
        self._same_form(inputs)
        self.padded |= differ

    def _same_form(self, inputs: Inputs) -> None:
        """Batches become one, by place: each has to give the same arguments, and of those that are no tensors the same values.

        Raises:
            InputError: For a batch that does not.
        """
        flat, form = tree_flatten(inputs)
        others = [leaf for leaf in flat if not isinstance(leaf, Tensor | Each)]
        if self.form is None:
            self.form = form, others
        if form != self.form[0]:
            before = self.form[0].unflatten([None] * self.form[0].num_leaves)
            raise InputError(f"{self.name}: batches differ, they give {_arguments(before)} and {_arguments(inputs)}; give each the same")
        for one, other in zip(self.form[1], others, strict=True):
            if one is not other and not _equal(one, other):
                said = f"{str(one)[:40]} and {str(other)[:40]}"
                raise InputError(f"{self.name}: batches differ in what is not a tensor, {said}; give each the same")

    def pad(self, inputs: Inputs) -> Inputs:
        """A batch in the length of the longest."""
        left, mask, names = self.starts and not self.ends, counted(inputs), _names(inputs)
        longest, which = self.longest, self.padded - self.decoded
        same = any(self.lengths[i] == longest for i in self.decoded)
        if mask is not None and same and (self.starts or self.ends or which):
            own = [_One.of(leaf).may_be_padded(mask.shape[1]) is not None for leaf in leaves(inputs)]
            longest, which = longest + 1, {i for i, of_mask in enumerate(own) if of_mask and i not in self.decoded}
        for i in self.decoded:
            inputs = pad(inputs, {i}, self.lengths[i], False, IGNORED if names[i] == LABELS else 0)
        return pad(inputs, which, longest, left) if which else inputs


@dataclass(frozen=True)
class _One:
    """What a batch's tensor holds of one example: of a list of tensors of any sizes their number of dimensions alone."""

    kind: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, leaf: Tensor | Each) -> _One:
        tensor = leaf[0] if isinstance(leaf, Each) else leaf
        kind = f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
        return cls(f"lists of tensors {kind}", ()) if isinstance(leaf, Each) else cls(kind, tuple(leaf.shape[1:]))

    def may_be_padded(self, length: int | None) -> tuple[int, ...] | None:
        """The rest of its shape, if it has as many places as the attention mask; None of any other."""
        return self.shape[1:] if self.shape[:1] == (length,) else None


def _names(inputs: Inputs) -> list[str | None]:
    """Of each tensor of a batch the name by which it is given."""
    names = {id(value): name for name, value in arguments(inputs).kwargs.items()}
    return [names.get(id(leaf)) for leaf in leaves(inputs)]


def _of_decoder(inputs: Inputs) -> tuple[list[int], list[int]]:
    """Which tensors may be of a decoder's tokens, and which are: those that are called so, and labels beside these or where they are not as
    long as the mask."""
    names, mask = _names(inputs), counted(inputs)
    named = [i for i, (name, leaf) in enumerate(zip(names, leaves(inputs))) if str(name).startswith(DECODER) and _by_token(leaf)]
    labels = [i for i, (name, leaf) in enumerate(zip(names, leaves(inputs))) if name == LABELS and _by_token(leaf)]
    are = [i for i in labels if named or mask is not None and _One.of(leaves(inputs)[i]).shape[0] != mask.shape[1]]
    return [*named, *labels], [*named, *are]


def _by_token(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 1


def _said(ones: Sequence[_One]) -> str:
    return "; ".join(one.kind if one.kind.startswith("lists") else f"{one.shape} {one.kind}" for one in ones)


def _check(inputs: Inputs, name: str) -> None:
    """That a batch holds examples.

    Raises:
        InputError: For a batch without tensors, and one whose tensors disagree on the number of examples.
    """
    held = leaves(inputs)
    if not held or any(isinstance(leaf, Tensor) and leaf.dim() == 0 for leaf in held):
        what = "tensor of shape ()" if held else type(inputs).__name__
        raise InputError(f"{name}: a batch holds a {what}; give tensors whose first dimension runs over the examples")
    if odd := [what for what in map(odd_layout, tensors(inputs)) if what is not None]:
        raise InputError(f"{name}: a batch holds a {odd[0]} tensor; give dense ones")
    if len({len(leaf) for leaf in held}) > 1:
        raise InputError(f"{name}: the tensors of a batch hold different numbers of examples, {', '.join(str(len(leaf)) for leaf in held)}")
    if not len(held[0]):
        raise InputError(f"{name}: it is empty; give at least one example")


def _arguments(inputs: Inputs) -> str:
    given = arguments(inputs)
    return f"({', '.join([*(f'argument {i + 1}' for i in range(len(given.args))), *map(str, given.kwargs)])[:80]})"


def _equal(one: Any, other: Any) -> bool:
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # whatever a comparison of the user's objects raises; an array's is no single answer
        return False
