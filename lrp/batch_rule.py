"""What of a batch goes into a network, by what its forward takes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lrp.errors import InputError, first_line
from lrp.inputs import MASK, Arguments, Each, Inputs, on_tensors

log = logging.getLogger(__name__)
CHANNELS = (1, 3, 4)  # of an image: grey, colours, colours and opacity
SETTING = (bool, int, float, str)  # an argument whose default is one of these is no input


@dataclass(frozen=True)
class Forward:
    """What a network's forward takes.

    Attributes:
        said: How a sentence calls it.
        names: Those of its arguments that may be given by position or by name, in order.
        required: How many have to be given by position.
        most: How many inputs it takes at the most.
    """

    said: str = "the network"
    names: tuple[str, ...] = ()
    required: int = 0
    most: float = float("inf")

    @classmethod
    def of(cls, model: nn.Module) -> Forward:
        """That of a network; where its signature cannot be read it may take anything."""
        try:
            found = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):
            return cls()
        ordered = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        any_number = any(p.kind == p.VAR_POSITIONAL for p in found)
        inputs = [p for p in (*ordered, *(p for p in found if p.kind == p.KEYWORD_ONLY)) if not isinstance(p.default, SETTING)]
        names = tuple(p.name for p in ordered) if all(p.kind == p.POSITIONAL_OR_KEYWORD for p in ordered) else ()
        shown = [str(p).partition(":")[0].partition("=")[0] for p in found]
        said = f"forward({', '.join([*shown[:4], '...'] if len(shown) > 4 else shown)})"
        return cls(said, names, sum(p.default is p.empty for p in ordered), float("inf") if any_number else len(inputs))


class BatchRule:
    """What a network is called with for each batch of a source."""

    def __init__(self, forward: Forward, choose: Callable[[Any], Any] | None, name: str) -> None:
        """``choose`` is the user's own rule, a function of the batch (None: that of ``Batches``); errors call the source ``name``."""
        self.forward, self.choose, self.name = forward, choose, name
        self._order: tuple[Any, ...] = ()  # of the first batch's keyword arguments, in which those of later ones are put
        self._said = False  # of what is taken for labels
        self._each: tuple[bool, bool] | None = None  # whether a batch is a list of examples, or its first entry is: as in the first batch

    def __call__(self, batch: Any) -> tuple[Inputs, Any]:
        """What goes into the network, without its graph, and the labels, where there are some.

        Raises:
            InputError: For a batch of which it cannot be told what goes into the network, and where ``choose`` fails.
        """
        inputs, label = self._by_rule(_tensors(batch)) if self.choose is None else (_tensors(_chosen(batch, self.choose)), None)
        return on_tensors(Tensor.detach, self._ordered(_by_name(inputs, self.forward))), label

    def _ordered(self, inputs: Inputs) -> Inputs:
        kwargs = inputs.kwargs if isinstance(inputs, Arguments) else inputs if isinstance(inputs, Mapping) else {}
        self._order = self._order or tuple(kwargs)
        if tuple(kwargs) == self._order or kwargs.keys() != {*self._order}:
            return inputs
        kwargs = {name: kwargs[name] for name in self._order}
        return Arguments(inputs.args, kwargs) if isinstance(inputs, Arguments) else kwargs

    def whole(self, batch: Any) -> Inputs:
        """The same of a source that is one batch: a tuple holds the arguments of one call.

        Raises:
            InputError: Where ``choose`` fails.
        """
        inputs = _plain(batch) if self.choose is None else _chosen(batch, self.choose)
        return on_tensors(Tensor.detach, _by_name(inputs, self.forward))

    def _by_rule(self, batch: Any) -> tuple[Inputs, Any]:
        if not isinstance(batch, tuple | list) or len(batch) == 0:
            return _plain(batch), None
        if self._each is None:
            whole = self.forward.required <= 1 and len(batch) > 2 and _apart(batch)
            self._each = whole, not whole and _apart(batch[0], *batch[1:2])
        whole, first = self._each
        if whole:
            return Each(batch), None
        if first:
            batch = [Each(batch[0]), *batch[1:]]
        elif isinstance(batch[0], tuple | Mapping):  # it holds the arguments
            return _plain(batch[0]), batch[1] if len(batch) > 1 else None
        return self._of_entries(batch)

    def _of_entries(self, batch: Sequence[Any]) -> tuple[Inputs, Any]:
        forward, count = self.forward, max(self.forward.required, 1)
        taken, rest = batch[:count], batch[count:]
        left = [entry for entry in rest if isinstance(entry, Tensor)]
        if forward.most > count and (len(left) > 1 or any(entry.dim() > 1 for entry in left)):
            shapes = ", ".join(str(tuple(entry.shape)) if isinstance(entry, Tensor) else type(entry).__name__ for entry in batch)
            first = f"the first {count}" if count > 1 else "the first"
            raise InputError(
                f"{self.name}: a batch holds {shapes}, and {forward.said} may take more than {first} of these; say what goes in, "
                "such as inputs=lambda batch: batch[0], or (batch[0], batch[1]), or dict(x=batch[0])"
            )
        if forward.names and forward.most > count and left and not self._said:
            self._said = True
            log.warning(
                "%s: entry %d of a batch, %s, is taken for the labels; %s could take it as well: inputs= says what goes in",
                self.name, 1 + next(i for i, entry in enumerate(batch) if entry is left[0]), tuple(left[0].shape), forward.said,
            )  # fmt: skip
        return taken[0] if len(taken) == 1 else tuple(taken), left[0] if left else rest[0] if rest else None


def _chosen(batch: Any, choose: Callable[[Any], Any]) -> Inputs:
    try:
        result = choose(batch)
    except Exception as error:  # whatever the user's function raises
        what = f"it cannot read a batch, a {type(batch).__name__} ({type(error).__name__}: {first_line(error)})"
        raise InputError("inputs", getattr(choose, "__qualname__", choose), what) from error
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], tuple) and isinstance(result[1], Mapping):
        args, kwargs = tuple(map(_one_each, result[0])), {key: _one_each(value) for key, value in result[1].items()}
        return Arguments(args, kwargs) if args and kwargs else args or kwargs
    if isinstance(result, tuple):
        return tuple(map(_one_each, result))
    return {key: _one_each(value) for key, value in result.items()} if isinstance(result, Mapping) else _one_each(result)


def _one_each(value: Any) -> Any:
    """What the user picked; a list of tensors holds one of each example."""
    return Each(value) if type(value) is list and value and all(isinstance(entry, Tensor) for entry in value) else value


def _tensors(batch: Any) -> Any:
    """A batch with tensors in the place of numpy's arrays of numbers."""
    return tree_map(lambda value: torch.tensor(value) if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else value, batch)


def _plain(value: Any) -> Any:
    """A mapping of any kind as a dict: torch looks into no other, and transformers' are of many kinds."""
    return dict(value) if isinstance(value, Mapping) else value


def _apart(values: Any, label: Any = None) -> bool:
    """Whether a list or a tuple holds one tensor of each example and not several of all.

    So it is where the label beside it is a list of as many (a detector's targets), where the lengths of the first dimension differ
    (sequences), and for a list of images (C, H, W) that differ in size.
    """
    if not isinstance(values, tuple | list) or not values or not all(isinstance(value, Tensor) and value.dim() for value in values):
        return False
    if isinstance(label, tuple | list) and len(label) == len(values):
        return True
    shapes = {tuple(value.shape) for value in values}
    if len({len(shape) for shape in shapes}) > 1 or len({value.dtype for value in values}) > 1 or len(shapes) == 1:
        return False
    firsts = {shape[0] for shape in shapes}
    images = isinstance(values, list) and all(len(shape) == 3 for shape in shapes) and firsts <= set(CHANNELS)
    return len(firsts) > 1 or images


def _by_name(inputs: Inputs, forward: Forward) -> Inputs:
    """The same call with an attention mask, and what comes after it, given by name: by that it is found."""
    args: Sequence[Any] = inputs.args if isinstance(inputs, Arguments) else inputs if isinstance(inputs, tuple) else ()
    names = forward.names[: len(args)]
    if MASK not in names or len(args) > len(forward.names):
        return inputs
    at = names.index(MASK)
    more = inputs.kwargs if isinstance(inputs, Arguments) else {}
    return Arguments(tuple(args[:at]), {**dict(zip(names[at:], args[at:])), **more})
