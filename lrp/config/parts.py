"""The one maker of parts: for the command line, ``lrp.compress``, studies and experiments."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache, cached_property, partial
from typing import Any, cast

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lrp.config.paths import CONF, option_files
from lrp.config.schema import Config
from lrp.config.unread import tell_unread
from lrp.errors import InputError, first_line


@dataclass(frozen=True)
class Choice:
    """One option of a group and the values that are set for it.

    Attributes:
        group: Such as scorer.
        option: Such as perturbation.
        settings: All values of the group's node, ``_target_`` among them, whether the option's class takes them or not.
        defaults: The same as the option's own files give it.
    """

    group: str
    option: str
    settings: Mapping[str, Any]
    defaults: Mapping[str, Any]

    @cached_property
    def target(self) -> Any:
        """What makes the part.

        Raises:
            InputError: For a ``_target_`` that cannot be imported.
        """
        if not isinstance(self.settings.get("_target_"), str):
            raise InputError(f"{self.group}={self.option}: its YAML file must name a class or a function as _target_")
        path = str(self.settings["_target_"])
        try:
            return get_object(path)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            said = f"must be the dotted path of a class or a function ({' '.join(str(error).split())})"
            raise InputError(f"{self.group}._target_", path, said) from error

    @cached_property
    def taken(self) -> dict[str, Any]:
        """The settings that the class takes, and Hydra's own (``_target_``)."""
        parameters = inspect.signature(self.target).parameters
        every = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
        return {name: value for name, value in self.settings.items() if every or name in parameters or name.startswith("_")}

    def takes(self, name: str) -> bool:
        """Whether the class that makes the part has an argument of this name."""
        return name in inspect.signature(self.target).parameters

    def make(self, **more: Any) -> Any:
        """The part, given ``more`` besides where its class takes it.

        What is set and not taken is said in the log, where it is not the default.

        Raises:
            InputError: For a value that the part refuses.
        """
        for name, value in self.settings.items():
            if name not in self.taken and name not in self.defaults and name != "parts":  # those of a method, which its maker reads
                raise InputError(f"{self.group}.{name}", value, f"{self.group}={self.option} has no such option")
            if name not in self.taken and value != self.defaults.get(name):
                tell_unread(f"{self.group}.{name}", f"{self.group}={self.option} does not use {self.group}.{name}={value}")
        given = {name: value for name, value in more.items() if self.takes(name)}
        try:
            make = instantiate({**self.taken, "_partial_": True}, _convert_="all")  # parts in the settings are made, too
            return partial(make, **given) if self.settings.get("_partial_") else make(**given)
        except InputError:
            raise
        except InstantiationException as error:
            raise InputError(_reason(error)) from error
        except Exception as error:  # whatever a class of the user's raises
            raise InputError(f"{self.group}={self.option}: {first_line(error)}") from error


def make(group: str, chosen: Any, **options: Any) -> Any:
    """The part that the name of an option stands for (``make("blocking", "alds", k=2)``), with the option's defaults but for
    these ``options``; an object is returned as it is.

    Raises:
        InputError: For a name that is not an option of the group, for an object that is not a configured part, and for bad values.
    """
    if isinstance(chosen, str):
        defaults = option_defaults(group, chosen)
        return Choice(group, chosen, {**defaults, **options}, defaults).make()
    if isinstance(chosen, type) or not (callable(chosen) or is_dataclass(chosen)):
        raise InputError(group, chosen, "must be the name of an option or a configured object")
    if not hasattr(chosen, "name") and hasattr(chosen, "__code__"):  # a plain function
        raise InputError(
            group, getattr(chosen, "__qualname__", chosen), "a function has to have a name, as parts have, such as function.name = 'mine'"
        )
    return chosen


def option_defaults(group: str, option: str, config: DictConfig | None = None) -> dict[str, Any]:
    """What the files say of an option: what it shares with its group, and its own. Interpolations (``${seed}``) are read from
    ``config``, or from the defaults of every job.

    Raises:
        InputError: For a name that is not an option of the group, and for a file that cannot be read.
    """
    if config is not None:
        return _option_defaults(group, option, config)
    if not _all_ours(group):
        return _option_defaults(group, option, OmegaConf.structured(Config))
    return copy.deepcopy(_own_defaults(group, option))


@cache
def _own_defaults(group: str, option: str) -> dict[str, Any]:
    """Of lrp's own files, which take longer to read than a small network to compress."""
    return _option_defaults(group, option, OmegaConf.structured(Config))


def _option_defaults(group: str, option: str, config: Any) -> dict[str, Any]:
    try:
        own, merged = _our_options(group, option) if _all_ours(group) else _read_options(group, option)
        if "${" in str(merged):
            root = OmegaConf.create(plain(config, resolve=False))
            root[group] = merged
            merged = root[group]
        found = plain(merged)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(f"{group}={option}: its file cannot be read ({first_line(error)})") from error
    if option_files(group)[option].parents[1] != CONF:
        _check_shared(Choice(group, option, found, found), set(merged) - set(own))
    return found


def _all_ours(group: str) -> bool:
    """Whether all options of a group are lrp's own: your own files may change."""
    return all(file.parents[1] == CONF for file in option_files(group).values())


def _read_options(group: str, option: str) -> tuple[DictConfig, DictConfig]:
    """What an option's file says, with those that it names; and the same on top of what it shares with its group."""
    shared = cast(DictConfig, OmegaConf.load(CONF / "options.yaml")).get(group, {})
    own = _own_options(group, option)
    return own, cast(DictConfig, OmegaConf.merge(shared, own))


_our_options = cache(_read_options)


def _check_shared(choice: Choice, silent: set[Any]) -> None:
    """That your own option does not get a default of lrp's group in place of its class's.

    Raises:
        InputError: For an option that the group shares, that the file is ``silent`` about and whose class has another default.
    """
    for name, parameter in inspect.signature(choice.target).parameters.items():
        if name in silent and parameter.default not in (parameter.empty, choice.settings[name]):
            usual = f"lrp's group {choice.group} shares it, with the default {choice.settings[name]}"
            raise InputError(f"{choice.group}={choice.option}: its YAML file must set {name}: {usual}, its class has {parameter.default}")


def _own_options(group: str, option: str) -> DictConfig:
    """The option's file, on top of those of its group that it names in a defaults list.

    Raises:
        InputError: For a name that is not an option of the group.
    """
    files = option_files(group)
    if option not in files:
        raise InputError(group, option, no_such_option(files))
    own = cast(DictConfig, OmegaConf.load(files[option]))
    bases = [base for base in own.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    return cast(DictConfig, OmegaConf.merge(*(_own_options(group, base) for base in bases), own))


def plain(node: Any, resolve: bool = True) -> dict[str, Any]:
    """A node of a configuration as ordinary dictionaries and lists."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=resolve, throw_on_missing=resolve, enum_to_str=True))


def no_such_option(options: Any) -> str:
    """The end of a sentence for a name that there is not."""
    return f"no such option; choose one of {', '.join(options)}"


def _reason(error: Exception) -> str:
    """The sentence of an InputError that Hydra has wrapped, or the first line of what went wrong."""
    cause: BaseException = error
    while not isinstance(cause, InputError):
        if cause.__cause__ is None:
            return first_line(cause)
        cause = cause.__cause__
    return str(cause)
