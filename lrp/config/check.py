"""The command line is checked before anything starts: one sentence for what cannot be used."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
)

from lrp.config.paths import CONF


def check_command_line(arguments: Sequence[str]) -> list[str]:
    """Compose every value on the command line, and build the parts of a job from it; exit with status 2 and one sentence
    where that fails. A sweep's values are tried one at a time, not in all combinations.

    Returns the arguments with flags first: Hydra's own parser refuses overrides on both sides of a flag.
    """
    if any(word in ("--help", "-h", "--hydra-help", "--version", "--info", "-i", "--shell-completion", "-sc") for word in arguments):
        return list(arguments)
    multirun = any(word in ("--multirun", "-m") for word in arguments)
    skip, texts, flags = False, [], []
    for word in arguments:
        if skip:
            flags.append(word)
            skip = False
        elif word in (
            "--cfg",
            "-c",
            "--package",
            "-p",
            "--config-dir",
            "-cd",
            "--config-name",
            "-cn",
            "--config-path",
            "-cp",
            "--experimental-rerun",
        ):
            flags.append(word)
            skip = True
        else:
            (flags if word.startswith("-") else texts).append(word)
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except HydraException as error:
        _stop(f"{_first_line(error)}: options are written group=option or node.key=value")
    for override in overrides:
        _check_group(override)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        multirun = multirun or _is_multirun(overrides)
        for combination in _combinations(overrides, multirun):
            config = _compose(combination)
            _check_study(config, combination)
            _make(config)
            if multirun and config.evaluation.latency:
                _check_alone(combination)
    return [*flags, *texts]


def _check_group(override: Override) -> None:
    name = override.key_or_group
    folder = CONF / name
    if not folder.is_dir() or name.startswith("hydra"):
        return
    options = sorted(file.stem for file in folder.glob("*.yaml"))
    values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
    for value in values:
        unset = value in (None, "null") and name in ("experiment", "study")
        if not unset and value not in options and not override.is_delete():
            _stop(f"{name}={'null' if value is None else value}: there is no such option, allowed are {', '.join(options)}")


def _is_multirun(overrides: Sequence[Override]) -> bool:
    """Whether the configuration itself asks for a multirun, as an experiment may."""
    single = [override.input_line for override in overrides if not override.is_sweep_override()]
    try:
        return str(compose("config", overrides=single, return_hydra_config=True).hydra.mode) == "RunMode.MULTIRUN"
    except (HydraException, OmegaConfBaseException):
        return False  # what is wrong is found and said below


def _check_study(config: DictConfig, texts: Sequence[str]) -> None:
    """A study trains networks of its own: an option of the pruning that it does not read is an error, not nothing."""
    from lrp.config.build import study_options

    allowed = study_options(config)
    if allowed is None:
        return
    for text in texts:
        root = text.lstrip("+~").split("=")[0].split(".")[0].split("@")[0]
        if root not in allowed and not root.startswith("hydra"):
            _stop(f"{text}: study={config.study._target_.split('.')[-2]} has no such option, allowed are {', '.join(sorted(allowed))}")


def _check_alone(texts: list[str]) -> None:
    """Jobs that measure latency do not run beside each other."""
    launcher = compose("config", overrides=texts, return_hydra_config=True).hydra.launcher
    if launcher.get("n_jobs", 1) != 1:
        _stop(
            f"evaluation.latency=true: jobs that run beside each other disturb it, so hydra.launcher.n_jobs=1 is needed, not {launcher.n_jobs}"
        )


def _combinations(overrides: Sequence[Override], multirun: bool) -> Iterator[list[str]]:
    """Each value of each sweep once, beside the first values of the others."""
    choices = []
    for override in overrides:
        if multirun and override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line])
    first = [each[0] for each in choices]
    yield first
    for i, each in enumerate(choices):
        for other in each[1:]:
            yield [*first[:i], other, *first[i + 1 :]]


def _compose(texts: list[str]) -> DictConfig:
    try:
        return compose("config", overrides=texts)
    except (HydraException, OmegaConfBaseException) as error:
        for text in texts:  # find the one to blame: alone it fails too
            try:
                compose("config", overrides=[text])
            except (HydraException, OmegaConfBaseException) as alone:
                _stop(_explain(text, alone))
        _stop(f"{' '.join(texts)}: {_first_line(error)}")


def _explain(text: str, error: Exception) -> str:
    key = text.split("=")[0].lstrip("+~")
    message = _first_line(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigKeyError | ConfigAttributeError):
        cause = cause.__cause__
    if cause is not None:
        known = _known()
        close = difflib.get_close_matches(key, known, 1)
        node = key.rsplit(".", 1)[0] + "." if "." in key else ""
        allowed = [name for name in known if name.startswith(node) and (node or "." not in name)]
        return f"{text}: there is no option {key}" + (f", did you mean {close[0]}?" if close else f"; allowed are {', '.join(allowed)}")
    cause = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException):
            message = _first_line(cause)
        cause = cause.__cause__
    return f"{text}: {message[:1].lower() + message[1:]}"


def _known() -> list[str]:
    """All groups and options of the default configuration."""
    config = OmegaConf.to_container(compose("config"), resolve=False)
    names: list[str] = []

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            if key != "_target_":
                names.append(prefix + key)
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(config, "")
    return [*names, "experiment"]


def _make(config: DictConfig) -> None:
    from lrp.config.build import make_job
    from lrp.errors import InputError

    try:
        make_job(config)
    except InputError as error:
        _stop(str(error))
    except OmegaConfBaseException as error:
        _stop(_first_line(error))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _stop(sentence: str) -> None:
    print(f"lrp: {sentence}", file=sys.stderr)
    raise SystemExit(2)
