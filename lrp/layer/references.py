"""Layers that a network holds outside of its tree of modules: in lists, dicts, partials and plain objects."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from lrp.layer.carry import OF_TORCH

PLAIN = (bool, int, float, complex, str, bytes, type(None), Tensor, type, FunctionType, ModuleType)


def replace_references(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever the modules of a network hold ``old`` in an attribute: directly, in lists, tuples, sets, dicts, partials, as
    a bound method, or in objects that they hold. What a closure holds cannot be reached."""
    search = _Search(old, new)
    for module in list(model.modules()):
        search.attributes(module)


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
            return getattr(self.new, value.__func__.__name__, value) if value.__self__ is self.old else value
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
