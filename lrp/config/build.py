"""The job that a configuration describes."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from lrp.config.parts import _reason, make_part
from lrp.config.schema import register
from lrp.method.base import METHOD_PARTS


def compose_job(*overrides: str) -> Any:
    """The job that these words on the command line describe, for notebooks and scripts: ``compose_job("scorer=variance")``.

    Raises InputError for a value that no part accepts, and Hydra's own errors for words that it does not understand.
    """
    from hydra import compose, initialize_config_dir

    from lrp.config.paths import CONF

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return make_job(compose("config", overrides=list(overrides)))


def make_job(config: DictConfig) -> Any:
    """The job that a configuration describes. Raises InputError for a value that no part accepts."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from lrp.job.calibration import Calibration
    from lrp.job.prune import Job

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

    from lrp.errors import InputError

    options = OmegaConf.to_container(config.method, resolve=True)
    kind = get_class(options.pop("_target_"))
    named = options.pop("parts", None) or {}
    if config.macs_removed is not None and "macs_removed" not in signature(kind).parameters:
        raise InputError("macs_removed", config.macs_removed, f"method={options.get('name', kind.__name__.lower())} knows one budget only")
    given = {
        "budget": config.budget,
        "macs_removed": config.macs_removed,
        "exclude": tuple(config.exclude),
        "samples": config.calibration.samples,
        "keep_factor": config.rounds.keep_factor,
        **options,
    }
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

    from lrp.study.job import USES

    return None if config.study is None else (*USES, *get_class(config.study._target_).uses)


def _make_study(config: DictConfig, settings: dict[str, Any]) -> Any:
    """The job of a study, which trains networks of its own; of the other nodes it gets those that it uses."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from lrp.study.job import StudyJob

    used = study_options(config)
    try:
        return StudyJob(
            study=instantiate(config.study, _convert_="all"), dataset=instantiate(config.dataset), tracker=instantiate(config.tracker),
            seed=settings["seed"], device=settings["device"], threads=settings["threads"], cache_dir=settings["cache_dir"],
            resume=settings["resume"], settings={name: value for name, value in settings.items() if name in used},
        )  # fmt: skip
    except InstantiationException as error:
        raise _reason(error) from error


def _model_source(options: dict[str, Any]) -> Any:
    """Where the network comes from. One's own callable is named in the tables by its path; of the options that lrp's networks
    have it gets those that it accepts."""
    import inspect

    from hydra.utils import get_object

    from lrp.config.paths import CONF
    from lrp.errors import InputError
    from lrp.model.source import ModelSource
    from lrp.training import Training

    target = options.pop("_target_")
    name, checkpoint, training = options.pop("name"), options.pop("checkpoint"), options.pop("training")
    if checkpoint is not None and not isinstance(checkpoint, str):
        raise InputError("model.checkpoint", checkpoint, "the path of a file is needed")
    try:
        make = get_object(target)
        signature = inspect.signature(make)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(
            "model._target_", target, f"the dotted path of something that makes a network is needed ({' '.join(str(error).split())})"
        ) from error
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
