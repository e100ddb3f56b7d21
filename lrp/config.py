"""The typed configuration, and the parts of a job made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf


@dataclass
class SparsityNode:
    grid: list[float] = MISSING


@dataclass
class CalibrationNode:
    images: int = 512
    scoring_images: int = 64
    seed: int = 0
    batch_size: int = 128


@dataclass
class EvaluationNode:
    batch_size: int = 100


@dataclass
class Config:
    """Top-level scalars and the nodes that every job has; the groups fill the rest."""

    model: Any = MISSING
    dataset: Any = MISSING
    blocking: Any = MISSING
    scorer: Any = MISSING
    estimator: Any = MISSING
    selection: Any = MISSING
    recovery: Any = MISSING
    tracker: Any = MISSING
    sparsity: SparsityNode = field(default_factory=SparsityNode)
    calibration: CalibrationNode = field(default_factory=CalibrationNode)
    evaluation: EvaluationNode = field(default_factory=EvaluationNode)
    seed: int = 0
    device: str = "auto"
    threads: Optional[int] = None  # omegaconf reads this annotation
    resume: bool = False
    cache_dir: str = "outputs/cache"


def register() -> None:
    ConfigStore.instance().store(name="base", node=Config)


def compose_job(*overrides: str) -> Any:
    """The job that these words on the command line describe, for notebooks and scripts: ``compose_job("scorer=variance")``.

    Raises InputError for a value that no part accepts, and Hydra's own errors for words that it does not understand.
    """
    from hydra import compose, initialize_config_dir

    from lrp.command_line import CONF

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return make_job(compose("config", overrides=list(overrides)))


def make_job(config: DictConfig) -> Any:
    """The job that a configuration describes. Raises InputError for a value that no part accepts."""
    from hydra.errors import InstantiationException
    from hydra.utils import get_object, instantiate

    from lrp.errors import InputError
    from lrp.models.source import ModelSource
    from lrp.pipeline import Calibration, Job
    from lrp.training import Training

    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True, enum_to_str=True)
    try:
        options = dict(settings["model"])
        make = get_object(options.pop("_target_"))
        name, checkpoint, training = options.pop("name"), options.pop("checkpoint"), options.pop("training")
        source = ModelSource(name, make, options, checkpoint, Training(**training))
        _check_model(source)
        parts = {key: instantiate(config[key]) for key in ("dataset", "blocking", "scorer", "estimator", "selection", "recovery", "tracker")}
    except InstantiationException as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        raise cause or InputError(_sentence(error)) from error
    return Job(
        model=source,
        sparsities=tuple(float(s) for s in settings["sparsity"]["grid"]),
        calibration=Calibration(**settings["calibration"]),
        batch_size=settings["evaluation"]["batch_size"],
        seed=settings["seed"],
        device=settings["device"],
        threads=settings["threads"],
        cache_dir=settings["cache_dir"],
        resume=settings["resume"],
        settings=settings,
        **parts,
    )


def _check_model(source: Any) -> None:
    """A wrong option of the network is found before any data is read: build it once without memory."""
    import torch

    from lrp.errors import InputError, reject

    if source.checkpoint is not None and not isinstance(source.checkpoint, str):
        raise reject("model.checkpoint", source.checkpoint, "the path of a file is needed")
    try:
        with torch.device("meta"):
            source.make(in_channels=1, num_classes=10, **source.options)
    except InputError:
        raise
    except TypeError as error:
        raise InputError(f"model={source.name}: its options do not fit ({error})") from error


def _sentence(error: Exception) -> str:
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    return str(root).splitlines()[0] if str(root) else type(root).__name__


