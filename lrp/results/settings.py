"""Whether two configurations describe the same job: the names and values of options count, not where a class lies in lrp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrp.files import flatten

# Settings that change where and how a job runs or what is drawn of it, not what it computes.
_INCIDENTAL = (
    "resume",
    "threads",
    "cache_dir",
    "tracker",
    "choices",
    "dataset.root",
    "study.figure",
    "compensation.memory_limit",
    "optimise",
)
# What options were before they could be set, or after they were taken away, where that is not null.
_WITHOUT = {
    "recovery.hold_out": True,
    "search": "none",
    "model.training.optimizer": "sgd",
    "recovery.optimizer": "sgd",
    "budget_of": "layers",
}
# Options by the class that configurations named until November 2026, where the class's module was not called as the option.
_NAMED_OTHERWISE = {
    "lrp.data.Cifar10": "cifar10",
    "lrp.data.Mnist": "mnist",
    "lrp.data.MnistSmall": "mnist_small",
    "lrp.folder.ImageFolder": "folder",
    "lrp.methods.alds_method.Alds": "alds",
    "lrp.selection.GlobalSelection": "global",
    "lrp.selection.JointSelection": "joint",
    "lrp.selection.LagrangianSelection": "lagrangian",
    "lrp.selection.UniformSelection": "uniform",
}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting in which two configurations differ."""
    old, new = _comparable(before), _comparable(now)
    old, new = ({**{key: _WITHOUT.get(key) for key in (*old, *new)}, **settings} for settings in (old, new))
    return [f"{key} was {old[key]}, now {new[key]}" for key in old if old[key] != new[key]]


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in one level, an option of lrp's by its name in the place of its class."""
    result = {}
    for key, value in flatten(settings).items():
        if any(key == name or key.startswith(f"{name}.") for name in _INCIDENTAL):
            continue
        group = key.removesuffix("._target_")
        if group != key and str(value).startswith("lrp."):
            key, value = group, _option(settings, group, str(value))
        result[key] = value
    return result


def _option(settings: Mapping[str, Any], group: str, target: str) -> str:
    """The name of a group's option: as Hydra knew it, or as older configurations let it be told."""
    node = settings.get(group)
    choices = settings.get("choices")
    chosen = (choices.get(group) if isinstance(choices, Mapping) else None) or (node.get("name") if isinstance(node, Mapping) else None)
    return chosen or _NAMED_OTHERWISE.get(target) or target.split(".")[-2].rstrip("_")
