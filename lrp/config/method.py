"""Methods made from their names, for the command line and from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor

from lrp.config.parts import make_part, option_names
from lrp.config.paths import CONF
from lrp.errors import InputError
from lrp.method.base import METHOD_PARTS, Method


def make_method(
    chosen: str | Method, parts: Mapping[str, Any], shared: Mapping[str, Any], output: Callable[[Any], Tensor] | None = None
) -> Method:
    """A method from its name, with the defaults that it has on the command line; a method is returned as it is.

    Args:
        chosen: The name of an option of the group method, or a method.
        parts: What was asked for in place of the parts that the method names or the command line has: names or objects by group.
        shared: budget, macs_removed, exclude, samples: given to methods that take them.
        output: Finds the output tensor of a network that returns a tuple or a dict.

    Raises:
        InputError: For a name that there is not, and for parts or a second budget that the method does not use.
    """
    if not isinstance(chosen, str):
        if parts or output is not None or shared.get("macs_removed") is not None:
            given = next(iter([*parts, *(["output"] if output is not None else []), "macs_removed"]))
            raise InputError(given, parts.get(given, "..."), "a method that is given as an object has its parts already")
        return chosen
    options = _options(chosen)
    kind = get_class(options.pop("_target_"))
    named = options.pop("parts", None) or {}
    accepted = signature(kind).parameters
    for group, part in parts.items():
        if group not in accepted:
            raise InputError(group, part, f"method={chosen} has no place for it")
    if shared.get("macs_removed") is not None and "macs_removed" not in accepted:
        raise InputError("macs_removed", shared["macs_removed"], f"method={chosen} knows one budget only")
    given = {**shared, **options}
    for group in METHOD_PARTS:
        if group in accepted:
            given[group] = make_part(group, parts.get(group, named.get(group, default_option(group))))
    if output is not None:
        given["estimator"] = replace(given["estimator"], output_fn=output)
    return kind(**{name: value for name, value in given.items() if name in accepted})


def _options(name: str) -> dict[str, Any]:
    """What the option's file says, with a seed of 0."""
    if name not in (names := option_names("method")):
        raise InputError("method", name, f"no such option; choose one of {', '.join(names)}")
    whole = OmegaConf.create({"seed": 0, "method": OmegaConf.load(CONF / "method" / f"{name}.yaml")})
    options = OmegaConf.to_container(whole.method, resolve=True)
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items()}


def default_option(group: str) -> str:
    """The option of a group that the command line has unless it is told otherwise."""
    for entry in OmegaConf.load(CONF / "config.yaml").defaults:
        if not isinstance(entry, str) and group in entry:
            return str(entry[group])
    raise KeyError(group)
