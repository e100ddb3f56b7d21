"""Hydra's plugins that lrp has settings for, and the extras that install them."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from importlib.util import find_spec

from hydra.core.override_parser.types import Override

from lrp.errors import InputError

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"  # takes lists of values, all combinations
# Of each option of Hydra's own groups: the module that it needs, and the extra of lrp that installs it.
_SUBMITIT, _RAY = ("hydra_plugins.hydra_submitit_launcher", "slurm"), ("hydra_plugins.hydra_ray_launcher", "ray")
PLUGINS = {
    ("hydra/sweeper", "optuna"): ("hydra_plugins.hydra_optuna_sweeper", "search"),
    **{("hydra/launcher", name): _SUBMITIT for name in ("slurm", "submitit_slurm", "submitit_local")},
    **{("hydra/launcher", name): _RAY for name in ("ray", "ray_cluster")},
}


def check_plugins(overrides: Sequence[Override]) -> None:
    """Nothing, where what these words ask of Hydra is installed.

    Raises:
        InputError: With what to type, where it is not.
    """
    for override in overrides:
        module, extra = PLUGINS.get((override.key_or_group, str(override.value())), (None, None))
        if module is not None and not _installed(module):
            raise InputError(f"{override.input_line}: a package is missing; pip install 'lrp[{extra}]' brings it")


def search_words(overrides: Sequence[Override]) -> list[str]:
    """What a search by Optuna needs besides, where the command line does not say it: the direction, of ``optimise``, trials one after
    the other, and that a trial which fails does not take the others with it. Optuna minimises by default, whatever a column holds.

    Raises:
        InputError: Where nothing says what a job is judged by.
    """
    given = {override.key_or_group: override for override in overrides}
    if "hydra/sweeper" not in given or given["hydra/sweeper"].value() != "optuna":
        return []
    if "optimise" not in given:
        raise InputError(
            "hydra/sweeper=optuna: nothing says what a job is judged by; add optimise=accuracy, or another column of results.csv"
        )
    column = str(given["optimise"].value())
    best = "maximize" if "accuracy" in column or column.startswith("sparsity") else "minimize"
    words = {"direction": best, "n_jobs": "1", "sampler.seed": "0", "max_failure_rate": "1"}
    return [f"hydra.sweeper.{key}={value}" for key, value in words.items() if f"hydra.sweeper.{key}" not in given]


def say_once() -> None:
    """Keep Optuna's sweeper from telling the reason of a trial that failed after the trial has."""
    logging.getLogger(f"{PLUGINS['hydra/sweeper', 'optuna'][0]}._impl").addFilter(
        lambda record: not re.match(r"Failed experiment: job \d+: ", record.getMessage())
    )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
