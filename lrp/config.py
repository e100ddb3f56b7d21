"""The typed configuration, and the parts of a job made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf


METHOD_PARTS = ("blocking", "decomposition", "scorer", "estimator", "selection", "compensation")


@dataclass
class SparsityNode:
    grid: list[float] = MISSING


@dataclass
class CalibrationNode:
    images: int = 512
    scoring_images: int = 64
    seed: int = 0
    batch_size: int = 128
    samples: int = 65536


@dataclass
class RoundsNode:
    keep_factor: Optional[float] = None


@dataclass
class EvaluationNode:
    batch_size: int = 100
    latency: bool = False
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
    recovery: Any = MISSING
    tracker: Any = MISSING
    study: Any = None
    sparsity: SparsityNode = field(default_factory=SparsityNode)
    calibration: CalibrationNode = field(default_factory=CalibrationNode)
    rounds: RoundsNode = field(default_factory=RoundsNode)
    evaluation: EvaluationNode = field(default_factory=EvaluationNode)
    budget: str = "params"
    macs_removed: Optional[float] = None  # with budget=params: this share of the multiply-accumulates goes too
    exclude: list[str] = field(default_factory=list)
    save: bool = False
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
    from hydra.utils import instantiate

    from lrp.pipeline import Calibration, Job

    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True, enum_to_str=True)
    if settings["study"] is not None:
        return _make_study(config, settings)
    settings.pop("study")
    try:
        source = _model_source(dict(settings["model"]))
        parts = {name: instantiate(config[name]) for name in ("dataset", "recovery", "tracker", "estimator")}
        method = _make_method(config)
    except InstantiationException as error:
        raise _reason(error) from error
    return Job(
        model=source,
        method=method,
        sparsities=tuple(float(s) for s in settings["sparsity"]["grid"]),
        calibration=Calibration(**settings["calibration"]),
        batch_size=settings["evaluation"]["batch_size"],
        latency=settings["evaluation"]["latency"],
        part=settings["evaluation"]["part"],
        save=settings["save"],
        seed=settings["seed"],
        device=settings["device"],
        threads=settings["threads"],
        cache_dir=settings["cache_dir"],
        resume=settings["resume"],
        settings=settings,
        **parts,
    )


def _make_method(config: DictConfig) -> Any:
    """The method, given those of the job's parts that it has a place for; those that it names itself (``method.parts``) replace the
    job's choice: a name with the options of the job where it chose the same, a mapping with the options that it holds."""
    from inspect import signature

    from hydra.utils import get_class, instantiate

    from lrp.errors import reject

    options = OmegaConf.to_container(config.method, resolve=True)
    kind = get_class(options.pop("_target_"))
    named = options.pop("parts", None) or {}
    if config.macs_removed is not None and "macs_removed" not in signature(kind).parameters:
        raise reject("macs_removed", config.macs_removed, f"method={options.get('name', kind.__name__.lower())} knows one budget only")
    given = {"budget": config.budget, "macs_removed": config.macs_removed, "exclude": tuple(config.exclude), "samples": config.calibration.samples, "keep_factor": config.rounds.keep_factor, **options}
    for group in METHOD_PARTS:
        if group in signature(kind).parameters:
            chosen = named.get(group)
            if isinstance(chosen, dict):
                given[group] = instantiate(chosen)
                continue
            ours = instantiate(config[group])
            given[group] = ours if chosen in (None, ours.name) else make_part(group, chosen)
    return kind(**{name: value for name, value in given.items() if name in signature(kind).parameters})


def study_options(config: DictConfig) -> tuple[str, ...] | None:
    """The groups and options that the configuration's study reads; None where it has no study."""
    from hydra.utils import get_class

    from lrp.studies.job import USES

    return None if config.study is None else (*USES, *get_class(config.study._target_).uses)


def _make_study(config: DictConfig, settings: dict[str, Any]) -> Any:
    """The job of a study, which trains networks of its own; of the other nodes it gets those that it uses."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from lrp.studies.job import StudyJob

    used = study_options(config)
    try:
        return StudyJob(
            study=instantiate(config.study, _convert_="all"), dataset=instantiate(config.dataset), tracker=instantiate(config.tracker),
            seed=settings["seed"], device=settings["device"], threads=settings["threads"], cache_dir=settings["cache_dir"],
            resume=settings["resume"], settings={name: value for name, value in settings.items() if name in used},
        )  # fmt: skip
    except InstantiationException as error:
        raise _reason(error) from error


def make_part(group: str, chosen: Any) -> Any:
    """The part that a name of a configuration group stands for (``make_part("blocking", "square")``), with its defaults; anything
    else is returned as it is. Raises InputError for a name that there is not."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from lrp.command_line import CONF
    from lrp.errors import reject

    if not isinstance(chosen, str):
        if callable(chosen) and not isinstance(chosen, type):
            return chosen
        raise reject(group, chosen, "a name or a configured object is needed")
    options = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if chosen not in options:
        raise reject(group, chosen, f"there is no such option, allowed are {', '.join(options)}")
    try:
        return instantiate(OmegaConf.create({"seed": 0, group: OmegaConf.load(CONF / group / f"{chosen}.yaml")})[group])
    except InstantiationException as error:
        raise _reason(error) from error


def _model_source(options: dict[str, Any]) -> Any:
    """Where the network comes from. One's own callable is named in the tables by its path; of the options that lrp's networks
    have it gets those that it accepts."""
    import inspect

    from hydra.utils import get_object

    from lrp.command_line import CONF
    from lrp.errors import InputError, reject
    from lrp.models.source import ModelSource
    from lrp.training import Training

    target = options.pop("_target_")
    name, checkpoint, training = options.pop("name"), options.pop("checkpoint"), options.pop("training")
    if checkpoint is not None and not isinstance(checkpoint, str):
        raise reject("model.checkpoint", checkpoint, "the path of a file is needed")
    try:
        make = get_object(target)
        signature = inspect.signature(make)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise reject("model._target_", target, f"the dotted path of something that makes a network is needed ({' '.join(str(error).split())})") from error
    if not target.startswith("lrp."):
        default = OmegaConf.load(CONF / "model" / f"{name}.yaml") if (CONF / "model" / f"{name}.yaml").exists() else {}
        if options.get("width") == default.get("width"):  # nobody asked for it: it belongs to the network in whose place this one is
            options.pop("width", None)
        name = target
    source = ModelSource(name, make, options, checkpoint, Training(**training))
    accepted = source.arguments(in_channels=1, num_classes=10)
    try:
        signature.bind(**accepted)
    except TypeError as error:
        raise InputError(f"model={name}: its options do not fit ({error})") from error
    if target.startswith("lrp."):  # a wrong value is found before any data is read: build it once without memory
        import torch

        with torch.device("meta"):
            make(**accepted)
    return source


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
