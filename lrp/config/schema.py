"""The typed configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from lrp.job.calibration import Calibration


@dataclass
class SparsityNode:
    """``sparsity``: the shares of the compressed parameters to remove, each in [0, 1)."""

    grid: Any = MISSING  # a list of numbers, or one; ``lrp.config.build`` checks it


@dataclass
class RoundsNode:
    """``rounds``: the share of the parameters that each round keeps, in (0, 1); None: one round."""

    keep_factor: float | None = None


@dataclass
class EvaluationNode:
    """``evaluation``: images per batch, whether latency is measured, and the part of the data set (test or validation)."""

    batch_size: int = 100
    latency: Any = False  # true or false: of a field of type bool OmegaConf makes true of 3
    part: str = "test"


@dataclass
class Config:
    """Top-level scalars and the nodes that every job has; the groups fill the rest."""

    model: Any = MISSING
    dataset: Any = MISSING
    method: Any = MISSING
    blocking: Any = MISSING
    decomposition: Any = MISSING
    scorer: Any = MISSING
    estimator: Any = MISSING
    selection: Any = MISSING
    compensation: Any = MISSING
    search: Any = MISSING
    recovery: Any = MISSING
    tracker: Any = MISSING
    study: Any = None
    sparsity: SparsityNode = field(default_factory=SparsityNode)
    calibration: Calibration = field(default_factory=Calibration)
    rounds: RoundsNode = field(default_factory=RoundsNode)
    evaluation: EvaluationNode = field(default_factory=EvaluationNode)
    budget: str = "params"  # or macs, milliseconds
    budget_of: str = "layers"  # or network
    macs_removed: float | None = None  # with budget=params: this share of the multiply-accumulates goes too
    forms: Any = None  # names of forms, one, or auto; null: those of the method
    exclude: Any = field(default_factory=list)  # names, or one
    save: Any = False  # true or false, as ``latency``
    seed: int = 0
    device: str = "auto"
    threads: int | None = None  # omegaconf reads this annotation
    resume: Any = False
    cache_dir: str = "outputs/cache"
    optimise: str | None = None  # a column of results.csv


def register() -> None:
    """Make the schema known to Hydra, as the option ``base``."""
    ConfigStore.instance().store(name="base", node=Config)
