"""Parts made from their names."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


def make_part(group: str, chosen: Any) -> Any:
    """The part that a name of a configuration group stands for (``make_part("blocking", "square")``), with its defaults; anything
    else is returned as it is. Raises InputError for a name that there is not."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from lrp.config.paths import CONF
    from lrp.errors import InputError

    if not isinstance(chosen, str):
        if callable(chosen) and not isinstance(chosen, type):
            return chosen
        raise InputError(group, chosen, "a name or a configured object is needed")
    options = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if chosen not in options:
        raise InputError(group, chosen, f"there is no such option, allowed are {', '.join(options)}")
    try:
        return instantiate(OmegaConf.create({"seed": 0, group: OmegaConf.load(CONF / group / f"{chosen}.yaml")})[group])
    except InstantiationException as error:
        raise _reason(error) from error


def _reason(error: Exception) -> Exception:
    """The sentence of an InputError that Hydra has wrapped, or the first line of what went wrong."""
    from lrp.errors import InputError

    cause = error.__cause__
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    return cause or InputError(_sentence(error))


def _sentence(error: Exception) -> str:
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    return str(root).splitlines()[0] if str(root) else type(root).__name__


def option_names(group: str) -> list[str]:
    """The options of a group, in order."""
    from lrp.config.paths import CONF

    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))
