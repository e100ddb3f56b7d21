"""Layers that a network holds outside of its tree of modules: in lists, dicts, partials and plain objects."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from lrp.layer.carry import OF_TORCH

UNSEARCHED = (bool, int, float, complex, str, bytes, type(None), Tensor, type, ModuleType)
PLAIN = (*UNSEARCHED, FunctionType)


def replace_references(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever the modules of a network hold ``old`` in an attribute: directly, in lists, tuples, sets, dicts, partials, as
    a bound method, or in objects that they hold. What a closure holds cannot be reached (``out_of_reach``)."""
    search = _Search(old, new)
    for module in list(model.modules()):
        search.attributes(module)


def out_of_reach(model: nn.Module, layers: Iterable[nn.Module]) -> nn.Module | None:
    """One of these layers that the modules of a network hold where ``replace_references`` cannot put another, so that the network may go on
    with it: in a closure or a default of a function, in a slot, or in a container that cannot be written; None: there is none.

    Hooks are not looked into, they see layers and do not call them; nor is what a function finds among the names of its file.
    """
    wanted = {id(layer) for layer in layers}
    near: list[Any] = [*model.modules()]
    far: list[Any] = []
    seen: dict[int, Any] = {}  # what was seen is held, so that no other object takes its number
    while near or far:
        reached = bool(near)
        value = (near if reached else far).pop()
        if not reached and id(value) in wanted:
            return value
        if id(value) in seen or isinstance(value, UNSEARCHED):
            continue
        seen[id(value)] = value
        (near if reached else far).extend(_written(value))
        far += _unwritten(value)
    return None


def held_elsewhere(model: nn.Module, parameters: Iterable[Tensor]) -> set[int]:
    """The ids of those of these parameters that the modules of a network hold outside of their tables of parameters, too: in a list, an
    object, a closure. A layer that takes the parameter's place in the table would leave that behind."""
    wanted, found = {id(parameter) for parameter in parameters}, set[int]()
    waiting: list[Any] = [*model.modules()]
    flat = (vars(module).get(name) for module in model.modules() for name in ("_flat_weights", "_flat_weight_refs"))
    seen: dict[int, Any] = {id(value): value for value in flat if value is not None}  # torch's own lists in recurrent layers
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            found |= {id(value)} & wanted
        elif id(value) not in seen and not isinstance(value, UNSEARCHED):
            seen[id(value)] = value
            waiting += [*_written(value), *_unwritten(value)]
    return found


def _written(value: Any) -> Iterator[Any]:
    """What a value holds where ``_Search`` looks, too."""
    if isinstance(value, (list, tuple, set, deque)):
        yield from value
    elif isinstance(value, dict):
        yield from (*value, *value.values())
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield value.__self__
    elif hasattr(value, "__dict__") and not isinstance(value, (FunctionType, Mapping)) and not _compiled(value):
        yield from (held for name, held in vars(value).items() if not isinstance(value, nn.Module) or name not in OF_TORCH)
    if isinstance(value, nn.Module):
        yield from value._modules.values()


def _unwritten(value: Any) -> Iterator[Any]:
    """What a value holds where ``_Search`` does not look."""
    if _compiled(value):
        return
    if isinstance(value, nn.Module):
        yield type(value).forward
    if isinstance(value, MethodType):
        yield value.__func__
    if isinstance(value, FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that is empty yet
                yield cell.cell_contents
        yield from (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *vars(value).values())
    elif isinstance(value, frozenset):
        yield from value
    elif isinstance(value, MappingProxyType):
        yield from value.values()
    elif isinstance(value, Mapping) and not isinstance(value, dict) and hasattr(value, "__dict__"):
        yield from vars(value).values()
    for name in (name for kind in type(value).__mro__ for name in _slots(kind)):
        with contextlib.suppress(AttributeError):
            yield object.__getattribute__(value, name)


def _compiled(value: Any) -> bool:
    """Whether torch.compile made a module: what that holds besides the network inside is torch's, and runs the network as it is."""
    return isinstance(value, nn.Module) and "_orig_mod" in value._modules


def _slots(kind: type) -> Iterable[str]:
    found = vars(kind).get("__slots__", ())
    names = [found] if isinstance(found, str) else found
    return [f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name for name in names]


class _Search:
    def __init__(self, old: nn.Module, new: nn.Module) -> None:
        self.old, self.new = old, new
        self.seen: dict[int, Any] = {id(new): new}  # what was seen is held, so that no other object takes its number

    def attributes(self, owner: Any) -> None:
        """Replace what an object's own attributes hold."""
        if id(owner) in self.seen:
            return
        self.seen[id(owner)] = owner
        held = vars(owner)
        for name, value in list(held.items()):
            if isinstance(value, PLAIN) or isinstance(owner, nn.Module) and name in OF_TORCH:
                continue
            changed = self.value(value)
            if changed is not value:
                held[name] = changed
        if isinstance(owner, nn.Module):  # one that a list holds is in no tree
            for name, child in list(owner._modules.items()):
                if child is self.old:
                    owner._modules[name] = self.new
                elif child is not None:
                    self.attributes(child)

    def value(self, value: Any) -> Any:
        """The value with ``new`` in place of ``old``; containers that can be written are changed in place."""
        if value is self.old:
            return self.new
        if isinstance(value, MethodType):
            if value.__self__ is self.old:
                return getattr(self.new, value.__func__.__name__, value)
            if hasattr(value.__self__, "__dict__") and not isinstance(value.__self__, (type, Mapping)):
                self.attributes(value.__self__)
            return value
        if isinstance(value, PLAIN) or id(value) in self.seen:
            return value
        if isinstance(value, functools.partial):
            function, *arguments = map(self.value, (value.func, *value.args))
            keywords = {key: self.value(item) for key, item in value.keywords.items()}
            held = (value.func, *value.args, *value.keywords.values())
            same = all(map(_is, (function, *arguments, *keywords.values()), held))
            return value if same else functools.partial(function, *arguments, **keywords)
        if isinstance(value, tuple):
            items = [self.value(item) for item in value]
            if all(map(_is, items, value)):
                return value
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        self.seen[id(value)] = value
        if isinstance(value, (list, deque)):
            for i, item in enumerate(value):
                value[i] = self.value(item)
        elif isinstance(value, dict):
            for key in [key for key in value if key is self.old]:
                value[self.new] = value.pop(key)
            for key, item in list(value.items()):
                value[key] = self.value(item)
        elif isinstance(value, set) and self.old in value:
            value.remove(self.old)
            value.add(self.new)
        elif hasattr(value, "__dict__") and not isinstance(value, Mapping):
            del self.seen[id(value)]
            self.attributes(value)
        return value


def _is(a: Any, b: Any) -> bool:
    return a is b
