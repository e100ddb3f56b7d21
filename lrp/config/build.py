"""The job that a configuration describes. Importing it loads torch."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from lrp.config.method import default_option
from lrp.config.parts import Choice, option_defaults, plain
from lrp.config.paths import CONF, search_path, use_folders
from lrp.config.schema import Config, register
from lrp.config.sweeps import sweep_name
from lrp.config.unread import tell_unread
from lrp.config.values import as_lists, meant
from lrp.errors import InputError, check_list, first_line
from lrp.figure.accuracy import FIGURE
from lrp.figure.base import Figure
from lrp.job.calibration import Calibration
from lrp.job.prune import Job
from lrp.job.row import changed_options
from lrp.job.tracked import track_files
from lrp.method.base import METHOD_PARTS
from lrp.model.source import ModelSource
from lrp.model.unfilled import unfilled
from lrp.results.columns import check_column
from lrp.study.job import USES, StudyJob
from lrp.training import Training

MATRIX = ["matrix"]  # the forms of rows that name none

# Options of the job that a method may take: its name for them, and where they are set.
_FROM_JOB = {"samples": "calibration.samples", "keep_factor": "rounds.keep_factor", "macs_removed": "macs_removed"}


def compose_job(*overrides: str, config_dir: str | Path | None = None) -> Any:
    """The job that these words on the command line describe, for notebooks and scripts: ``compose_job("scorer=variance")``.
    ``config_dir``: a folder of your own options, as ``--config-dir`` names it.

    Raises InputError for a value that no part accepts, and Hydra's own errors for words that it does not understand.
    """
    words = list(overrides) if config_dir is None else [search_path([str(config_dir)]), *overrides]
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=words, return_hydra_config=True)
    return make_job(config, config.hydra)


def make_job(config: DictConfig, hydra: Any) -> Any:
    """The job that a configuration describes; ``hydra``, Hydra's own node, knows the options chosen and where options are found.

    Raises:
        InputError: For a value that no part accepts, and a column to optimise that there is not.
    """
    use_folders(source.path for source in hydra.runtime.config_sources if source.schema == "file")
    config, settings = _without_hydra(config, hydra)
    given = {str(word).lstrip("+").partition("=")[0] for word in hydra.overrides.task}
    job = _make_pruning(config, settings, given) if config.study is None else _make_study(config, settings)
    check_column(settings["optimise"], job.numbers, getattr(job, "latency", True))
    return job


def _without_hydra(config: DictConfig, hydra: Any) -> tuple[DictConfig, dict[str, Any]]:
    """A configuration without Hydra's own node, and its values, with the options chosen."""
    config = OmegaConf.create({name: node for name, node in plain(config, resolve=False).items() if name != "hydra"})
    settings = meant(plain(config))
    return config, {**settings, "choices": {group: option for group, option in hydra.runtime.choices.items() if group in settings}}


def track_sweep(config: DictConfig, folder: Path, drawn: Sequence[Path]) -> None:
    """Give the tables and figures of a whole sweep to its tracker, where it has one: a run of their own, in the group of the jobs."""
    hydra = config.hydra
    config, settings = _without_hydra(config, hydra)
    tracker = _choice(config, settings, "tracker").make()
    if not tracker.active:
        return
    name = sweep_name(hydra)
    with tracker.start(settings, {"study": "sweep", "label": name}, folder, name) as tracked:
        track_files(tracker, tracked, folder, lambda: drawn)


def find_figure(config: DictConfig) -> Figure | None:
    """The figure of a job's tables: of a study its own (``study.figure``), which it may lack."""
    if config.get("study") is None:
        return FIGURE
    return None if config.study.get("figure") is None else get_object(config.study.figure)


def study_options(config: DictConfig) -> tuple[str, ...] | None:
    """The groups and options that the configuration's study reads; None where it has no study."""
    if config.study is None:
        return None
    return (*USES, *Choice("study", "", plain(config.study), {}).target.uses)


def _choice(config: DictConfig, settings: dict[str, Any], group: str) -> Choice:
    option = settings["choices"][group]
    defaults = option_defaults(group, option, config)
    settings[group] = as_lists(settings[group], defaults)
    return Choice(group, option, settings[group], defaults)


def _make_pruning(config: DictConfig, settings: dict[str, Any], given: set[str]) -> Job:
    """The job of a pruning; ``given``: the names of the options that the command line sets."""
    settings.pop("study")
    settings["model"] = as_lists(settings["model"], option_defaults("model", str(settings["choices"]["model"]), config))
    source = _model_source(dict(settings["model"]), str(settings["choices"]["model"]))
    method = _choice(config, settings, "method")
    chosen = {group: choice for group in METHOD_PARTS if method.takes(group) for choice in [_part_choice(config, settings, method, group)]}
    parts = {group: _named(choice, choice.make()) for group, choice in chosen.items()}
    _tell_unused(config, method, chosen, settings, given)
    for word in getattr(parts.get("estimator"), "unread", ()):
        tell_unread(f"estimator.{word}", f"estimator.output=logits does not use estimator.{word}")
    recovery, search = (_choice(config, settings, group) for group in ("recovery", "search"))
    made = _make_method(method, settings, parts)
    return Job(
        dataset=_choice(config, settings, "dataset").make(),
        model=source,
        method=made,
        estimator=parts["estimator"] if "estimator" in parts else _choice(config, settings, "estimator").make(),
        recovery=recovery.make(),
        search=_named(search, search.make()),
        tracker=_choice(config, settings, "tracker").make(),
        options=_changed([*chosen.values(), method, recovery, search], settings, made),
        sparsities=tuple(settings["sparsity"]["grid"]),
        calibration=Calibration(**settings["calibration"]),
        budget_of=settings["budget_of"],
        batch_size=settings["evaluation"]["batch_size"],
        latency=settings["evaluation"]["latency"],
        part=settings["evaluation"]["part"],
        **{name: settings[name] for name in ("save", "seed", "device", "threads", "cache_dir", "resume")},
        settings=settings,
        parts=parts,
    )


def _tell_unused(config: DictConfig, method: Choice, chosen: Mapping[str, Choice], settings: dict[str, Any], given: set[str]) -> None:
    """Say in the log what was asked for and is not used: parts that the method has no place for, or names its own of, with their
    options, and options of the job that it does not read."""
    asked, usual = settings["choices"], OmegaConf.structured(Config)
    for group in METHOD_PARTS:
        used = chosen[group].option if group in chosen else None
        if used == asked[group]:
            continue
        words = [f"{group}={asked[group]}"] if group in given or asked[group] != default_option(group) else []
        ours = _choice(config, settings, group)
        read_anyway = group == "estimator" and used is None  # it reads the outputs of whatever method
        changed = () if read_anyway else ours.settings.items()
        words += [f"{group}.{name}={value}" for name, value in changed if value != ours.defaults.get(name, value)]
        for word in words:
            tell_unread(word.partition("=")[0], f"method={method.option} does not use {word}" + (f", it has {used}" if used else ""))
    for name, place in {**_FROM_JOB, "budget": "budget", "exclude": "exclude", "forms": "forms"}.items():
        if not method.takes(name) and _value(settings, place) != _value(usual, place):
            tell_unread(place, f"method={method.option} does not use {place}={_value(settings, place)}")
    if settings["model"]["checkpoint"] is not None:
        defaults = option_defaults("model", asked["model"], config)["training"]
        for name, value in settings["model"]["training"].items():
            if value != defaults.get(name):
                sentence = f"model.checkpoint={settings['model']['checkpoint']}: model.training.{name}={value} is not used"
                tell_unread(f"model.training.{name}", sentence)


def _named(choice: Choice, part: Any) -> Any:
    """A part of a method, which tables call by its name.

    Raises:
        InputError: For one without a name.
    """
    if not isinstance(getattr(part, "name", None), str):
        raise InputError(choice.group, choice.option, "its class must have an attribute name, which tables call it by")
    return part


def _part_choice(config: DictConfig, settings: dict[str, Any], method: Choice, group: str) -> Choice:
    """What a part of a method is: the job's choice, unless the method names its own (``method.parts``): a name, with the job's
    options where the job chose the same, or a mapping, with the options that it holds."""
    named, ours = (method.settings.get("parts") or {}).get(group), _choice(config, settings, group)
    if named in (None, ours.option):
        return ours
    if isinstance(named, str):
        defaults = option_defaults(group, named, config)
        return Choice(group, named, defaults, defaults)
    usual = (method.defaults.get("parts") or {}).get(group)
    return Choice(group, method.option, named, usual if isinstance(usual, Mapping) else {})


def _make_method(method: Choice, settings: Mapping[str, Any], parts: Mapping[str, Any]) -> Any:
    if settings["macs_removed"] is not None and not method.takes("macs_removed"):
        raise InputError("macs_removed", settings["macs_removed"], f"method={method.option} can meet only one budget")
    job = {name: _value(settings, place) for name, place in _FROM_JOB.items()}
    if settings["forms"] is not None:
        job["forms"] = settings["forms"]
    return method.make(**job, budget=settings["budget"], exclude=tuple(settings["exclude"]), **parts)


def _changed(choices: list[Choice], settings: Mapping[str, Any], method: Any) -> str | None:
    """The column ``options``: whatever is not at its default, of every part as it really is, and every set of forms but matrix alone."""
    usual, words = OmegaConf.structured(Config), []
    for choice in choices:
        if choice.group == "method":
            places = [place for name, place in _FROM_JOB.items() if choice.takes(name)]
            now, before = ({place: _value(values, place) for place in places} for values in (settings, usual))
            words += changed_options("", now, before)
            words += changed_options("", {"forms": list(getattr(method, "usable_forms", MATRIX))}, {"forms": MATRIX})
            words += changed_options("", {"budget_of": settings["budget_of"]}, {"budget_of": usual.budget_of})
        if choice.group == "search":
            words += changed_options("", {"search": choice.option}, {"search": "none"})
        words += changed_options(choice.group, choice.taken, choice.defaults)
    return " ".join(words) or None


def _value(settings: Any, place: str) -> Any:
    for key in place.split("."):
        settings = settings[key]
    return settings


def _make_study(config: DictConfig, settings: dict[str, Any]) -> StudyJob:
    """The job of a study, which trains networks of its own; of the other nodes it gets those that it uses."""
    used = study_options(config) or ()
    study = _choice(config, settings, "study")
    named = {name: _parts(config, name, chosen) for name, chosen in study.settings.items() if name.removesuffix("s") in METHOD_PARTS}
    study = Choice("study", study.option, {name: value for name, value in study.settings.items() if name not in named}, study.defaults)
    settings["choices"] = {group: option for group, option in settings["choices"].items() if group in used}
    return StudyJob(
        study=study.make(**named),
        dataset=_choice(config, settings, "dataset").make(),
        tracker=_choice(config, settings, "tracker").make(),
        **{name: settings[name] for name in ("seed", "device", "threads", "cache_dir", "resume")},
        settings={name: value for name, value in settings.items() if name in (*used, "choices")},
    )


def _parts(config: DictConfig, name: str, chosen: Any) -> Any:
    """The parts of a method that an option of a study names: one (``scorer``), or a list of them (``scorers``).

    Raises:
        InputError: For what is no name of an option, or no list of them.
    """
    group = name.removesuffix("s")
    if name != group:
        check_list(f"study.{name}", chosen)
        return [_parts(config, group, each) for each in chosen]
    if not isinstance(chosen, str):
        raise InputError(f"study.{group}", chosen, "must be the name of an option")
    defaults = option_defaults(group, chosen, config)
    return Choice(group, chosen, defaults, defaults).make()


def _model_source(options: dict[str, Any], option: str) -> ModelSource:
    """Where the network comes from. Your own callable is named in the tables by its path; of the options that lrp's networks have
    it gets those that it accepts.

    Raises:
        InputError: For a ``_target_`` that cannot be imported, options that it does not accept, and a checkpoint that is not a path.
    """
    target, checkpoint, training = options.pop("_target_"), options.pop("checkpoint"), options.pop("training")
    name = options.pop("name", target)
    if not isinstance(name, str) or not name:
        raise InputError("model.name", name, "must be a text")
    if checkpoint is not None and not isinstance(checkpoint, str):
        raise InputError("model.checkpoint", checkpoint, "must be the path of a file")
    try:
        factory = get_object(target)
        signature = inspect.signature(factory)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        said = f"must be the dotted path of something that makes a network ({' '.join(str(error).split())})"
        raise InputError("model._target_", target, said) from error
    default = option_defaults("model", option)
    if target != default["_target_"]:
        if options.get("width") == default.get("width"):  # nobody asked for it: it belongs to the network in whose place this one is
            options.pop("width", None)
        name = target
    if not isinstance(training, Mapping):
        raise InputError("model.training", training, "must be a mapping of options, such as {epochs: 8}")
    if unknown := sorted({*training} - {field.name for field in dataclasses.fields(Training) if field.init}):
        known = ", ".join(field.name for field in dataclasses.fields(Training) if field.init and field.name != "option")
        raise InputError(f"model.training.{unknown[0]}: there is no such option; choose one of {known}")
    source = ModelSource(name, factory, options, checkpoint, Training(**training))
    accepted = source.arguments(in_channels=1, num_classes=10)
    try:
        signature.bind(**accepted)
    except TypeError as error:
        raise InputError(f"model={name}: its options do not fit ({error})") from error
    # a wrong value is found before any data is read: build it once without memory
    if target.startswith("lrp.") and not getattr(factory, "reads_files", False):
        try:
            with unfilled():
                factory(**accepted)
        except (RuntimeError, TypeError, OverflowError) as error:  # more elements than a tensor can have
            raise InputError(f"model={name}: it cannot be made with {options} ({first_line(error)})") from error
    return source
