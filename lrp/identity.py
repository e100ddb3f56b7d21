"""What a network computes besides its weights: what keys of caches and of unfinished work have to hold."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lrp.files import own_sources

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, range, slice)
TORCHS = frozenset(vars(nn.Module()))  # attributes that every module has
LIBRARIES = ("torch", "builtins", "math", "numpy", "operator")


def computes(modules: Iterable[nn.Module]) -> list[str | Tensor]:
    """The sources of the classes of these modules that are neither torch's nor lrp's, and what every module holds in plain attributes:
    values, functions, and objects by what they hold; no addresses. Parameters, buffers and submodules are not part of it."""
    modules, seen = list(modules), set[int]()
    found: list[str | Tensor] = [*own_sources(modules)]
    for at, module in enumerate(modules):
        found.append(f"{at} {_name(type(module))}")
        for name, value in vars(module).items():
            if name not in TORCHS:
                found += [name, *_described(value, seen)]
    return found


def _described(value: Any, seen: set[int]) -> Iterator[str | Tensor]:
    """A value, and what is in it; ``seen`` are the objects that were described already."""
    if isinstance(value, PLAIN):
        yield repr(value)
        return
    if isinstance(value, Tensor):
        yield value.detach()
        return
    if id(value) in seen:
        yield "again"
        return
    seen.add(id(value))
    yield _name(type(value))
    if isinstance(value, nn.Module):
        return  # it is a submodule, or a part of none
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield from (*_described(key, seen), *_described(held, seen))
    elif isinstance(value, list | tuple | set | frozenset):
        parts = [[*_described(held, seen)] for held in value]
        for part in sorted(parts, key=str) if isinstance(value, set | frozenset) else parts:
            yield from part
    elif isinstance(value, functools.partial):
        yield from (*_described(value.func, seen), *_described(value.args, seen), *_described(value.keywords, seen))
    elif inspect.ismethod(value):
        yield from _described(value.__func__, seen)
    elif inspect.isroutine(value) or isinstance(value, type):
        yield from _code(value, seen)
    else:
        yield from own_sources([value])
        yield from _described(getattr(value, "__dict__", {}), seen)


def _code(value: Any, seen: set[int]) -> Iterator[str | Tensor]:
    """A function or a class: its name, and of the user's own the source and what it closes over."""
    yield _name(value)
    if str(getattr(value, "__module__", None) or "builtins").split(".")[0] in LIBRARIES:
        return
    with contextlib.suppress(OSError, TypeError):  # typed at a prompt, or no Python
        yield inspect.getsource(value)
    if (code := getattr(value, "__code__", None)) is not None:  # of two lambdas on one line the source is the same
        yield f"{code.co_code.hex()} {code.co_names} {[const for const in code.co_consts if isinstance(const, PLAIN)]}"
    for cell in getattr(value, "__closure__", None) or ():
        try:
            yield from _described(cell.cell_contents, seen)
        except ValueError:  # it is empty
            continue
    yield from _described(getattr(value, "__defaults__", None), seen)


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
