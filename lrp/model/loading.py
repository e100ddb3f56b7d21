"""Weights from a file into a network, or a sentence about why they do not fit."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrp.errors import InputError, first_line
from lrp.model.checkpoint import contents, dictionaries, plain, read_checkpoint, some_of
from lrp.model.names import AVERAGED, readings, unwrapped

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Match:
    """A dictionary of tensors, and how its names are those of a network.

    Attributes:
        state: The dictionary, as the file holds it.
        left_off: What is left off its names, in words; "": nothing.
        names: Of each name of the network that it has, its own name of that tensor.
        missing: Names that the network has alone.
        unexpected: Names that it has alone.
        wrong: Names of tensors whose shapes differ, with both shapes.
    """

    state: Mapping[str, Tensor]
    left_off: str
    names: Mapping[str, str]
    missing: list[str]
    unexpected: list[str]
    wrong: list[str]

    @property
    def problems(self) -> str:
        """What does not fit, in words; "" where everything does."""
        said = (("missing", self.missing), ("not in the network", self.unexpected), ("of another shape", self.wrong))
        return "; ".join(f"{what} {some_of(names)}" for what, names in said if names)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint, casting every tensor to the network's dtype.

    It may hold the weights under a key ("state_dict", "model", "net", ...), and their names may have those of what the network was
    wrapped in (DataParallel, torch.compile, AveragedModel): the log says so.

    Raises:
        InputError: For a file that cannot be read, for one that does not fit the network, naming what does not, and for values that are
            not finite or not of a kind that can be cast.
    """
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    match = _choose(read_checkpoint(path), own, path)
    state = OrderedDict((name, _cast(match.state[theirs], own[name], theirs, path)) for name, theirs in match.names.items())
    if bad := [name for name, value in state.items() if not bool(torch.isfinite(_comparable(value)).all())]:
        raise InputError("model.checkpoint", path, "it holds values that are not finite in " + some_of(bad))
    versions: Any = getattr(match.state, "_metadata", None)
    if versions is not None and not match.left_off:
        state._metadata = versions  # type: ignore[attr-defined]  # by which modules know how older versions of them were saved
    try:
        model.load_state_dict(state, strict=False)
    except Exception as error:  # whatever a module of the user's raises
        raise InputError("model.checkpoint", path, f"the network does not take it ({plain(first_line(error))})") from error


def _choose(held: Any, own: Mapping[str, Tensor], path: Path) -> _Match:
    """The one dictionary of a checkpoint that fits a network with these tensors.

    Raises:
        InputError: Where none fits or several do.
    """
    matches = {where: _match(state, own) for where, state in dictionaries(held).items()}
    if not matches:
        raise InputError("model.checkpoint", path, f"it does not hold a dictionary of tensors by their names, but {contents(held)}")
    usual = _usual(held)
    fitting = [where for where, match in matches.items() if not match.problems]
    if not fitting:
        where = usual if usual in matches else max(matches, key=lambda where: len(matches[where].names))
        others = [other for other in matches if other and other != where]
        at = f"what it holds under {plain(where)}" if where else "it"
        also = f" (nor does what it holds under {some_of(others)})" if others else ""
        raise InputError("model.checkpoint", path, f"{at} does not fit the network: {matches[where].problems}{also}")
    if len(fitting) > 1 and usual not in fitting:
        allowed = f"several of its parts fit the network: {some_of(fitting)}; save the one that you want alone"
        raise InputError("model.checkpoint", path, allowed)
    where = usual if usual in fitting else fitting[0]
    match = matches[where]
    if where:
        others = [other for other in fitting if other != where]
        unused = f", not those under {some_of(others)}" if others else ""
        log.info("model.checkpoint=%s: the weights are those under %s%s", path, plain(where), unused)
    if match.left_off:
        log.info("model.checkpoint=%s: %s is left off the names of the weights", path, plain(match.left_off))
    return match


def _usual(held: Any) -> str:
    """Where the weights are by convention: under "state_dict", "model", or both."""
    where = []
    for key in ("state_dict", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
            where.append(key)
    return ".".join(where)


def _match(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> _Match:
    """How the names of a dictionary are those of a network: as they are, or without wrappers on either side where that fits; else
    as most of them are found."""
    best: _Match | None = None
    theirs = [name for name in state if name != AVERAGED or AVERAGED in own]
    for left_off, names in readings(theirs):
        for _, mine in unwrapped(own):
            shared = {mine[name]: names[name] for name in mine if name in names}
            missing = [mine[name] for name in mine if name not in names and not name.endswith("num_batches_tracked")]
            unexpected = [names[name] for name in names if name not in mine]
            shapes = {name: (_shape(state[whole]), _shape(own[name])) for name, whole in shared.items()}
            wrong = [f"{name} {other} instead of {this}" for name, (other, this) in shapes.items() if other != this]
            match = _Match(state, left_off, shared, missing, unexpected, wrong)
            if not missing and not unexpected:
                return match
            if best is None or len(shared) > len(best.names):
                best = match
    assert best is not None
    return best


def _cast(value: Tensor, own: Tensor, name: str, path: Path) -> Tensor:
    """A tensor of a file in the precision that the network has.

    Raises:
        InputError: For one without values, and for one whose values would become others.
    """
    said = None
    if value.is_meta:
        said = "without values (on the device meta)"
    elif value.is_quantized:
        said = "quantised"
    elif value.is_complex() and not own.is_complex():
        said = "complex"
    elif own.is_floating_point() and not value.is_floating_point():
        said = f"of type {str(value.dtype).removeprefix('torch.')}"
    if said is not None:
        mine = str(own.dtype).removeprefix("torch.")
        raise InputError("model.checkpoint", path, f"its tensor {plain(name)} is {said}; the network's is of type {mine}")
    try:
        dense = value.detach() if value.layout == torch.strided else value.detach().to_dense()
        return dense.to(own.dtype)
    except Exception as error:  # kinds that torch cannot cast
        raise InputError("model.checkpoint", path, f"its tensor {plain(name)} cannot be cast ({plain(first_line(error))})") from error


def _shape(value: Tensor) -> tuple[int, ...] | str:
    return "nested" if value.is_nested else tuple(value.shape)


def _comparable(value: Tensor) -> Tensor:
    """In a type in which torch can tell what is finite: not of 8 bits."""
    return value.float() if value.is_floating_point() and value.element_size() == 1 else value
