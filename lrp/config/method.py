"""Methods made from their names, with the defaults that they have on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from lrp.config.parts import Choice, make, option_defaults
from lrp.config.paths import CONF
from lrp.errors import InputError
from lrp.job.calibration import Calibration
from lrp.method.base import METHOD_PARTS, Method


def make_method(
    chosen: str | Method, parts: Mapping[str, Any], shared: Mapping[str, Any], output: Callable[[Any], Tensor] | None = None
) -> Method:
    """A method from its name; a method is returned as it is.

    Args:
        chosen: The name of an option of the group method, or a method.
        parts: What was asked for in place of the parts that the method names, or that the command line has: names or objects by group.
        shared: budget, macs_removed, forms, exclude and samples, for methods that take them.
        output: Finds the output tensor of a network that returns a tuple or a dict.

    Raises:
        InputError: For a name that there is not, for parts or a second budget that the method does not use, and for parts beside a
            method that is given as an object.
    """
    if not isinstance(chosen, str):
        if isinstance(chosen, type) or not callable(getattr(chosen, "fit", None)):
            raise InputError("method", chosen, "must be the name of an option or a configured object")
        for name, usual in (("budget", "params"), ("exclude", ()), ("samples", Calibration().samples)):
            if shared[name] != usual:
                raise InputError(name, shared[name], "a method that is given as an object has its own; set it there")
        if unused := [
            *parts,
            *(["output"] if output is not None else []),
            *(name for name in ("macs_removed", "forms") if shared[name] is not None),
        ]:
            raise InputError(unused[0], parts.get(unused[0], "..."), "a method that is given as an object has its parts already")
        return chosen
    defaults = option_defaults("method", chosen)
    method = Choice("method", chosen, defaults, defaults)
    named = defaults.get("parts") or {}
    for group, part in parts.items():
        if not method.takes(group):
            raise InputError(group, part, f"method={chosen} does not use this part")
    if shared["macs_removed"] is not None and not method.takes("macs_removed"):
        raise InputError("macs_removed", shared["macs_removed"], f"method={chosen} can meet only one budget")
    if shared["forms"] is not None and not method.takes("forms"):
        raise InputError("forms", shared["forms"], f"method={chosen} has a form of its own")
    given = {g: _part(g, parts.get(g, named.get(g, default_option(g)))) for g in METHOD_PARTS if method.takes(g)}
    if output is not None and "estimator" in given:
        given["estimator"] = replace(given["estimator"], output_fn=output)
    return method.make(**{name: value for name, value in shared.items() if name != "forms" or value is not None}, **given)


def _part(group: str, chosen: Any) -> Any:
    """A part from its name, from a mapping that describes it (as a method's file may), or as it is."""
    return Choice(group, "", chosen, chosen).make() if isinstance(chosen, Mapping) else make(group, chosen)


@cache
def default_option(group: str) -> str:
    """The option of a group that the command line has unless it is told otherwise.

    Raises:
        KeyError: For a group that the command line does not have.
    """
    for entry in OmegaConf.load(CONF / "config.yaml").defaults:
        if not isinstance(entry, str) and group in entry:
            return str(entry[group])
    raise KeyError(group)
