"""The command line is checked before anything starts: one sentence for what cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, cast

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lrp.config.composed import begin, composed, is_multirun
from lrp.config.hydra_keys import added_to_hydra, no_hydra_key
from lrp.config.parts import no_such_option, plain
from lrp.config.paths import CONF, option_files, search_path, use_folders
from lrp.config.plugins import BASIC, check_plugins, search_words
from lrp.config.unread import check_read, unread
from lrp.config.words import is_interval, parse, quoted, sweep_values
from lrp.errors import InputError, first_line

_UNCHECKED = ("--help", "-h", "--hydra-help", "--version", "--info", "-i", "--shell-completion", "-sc")
_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--config-path", "-cp", "--experimental-rerun")
_CONFIG_DIR = ("--config-dir", "-cd")
NUMBERED = "${hydra.job.num}"  # the folder of a job in that of its sweep
_FLAGS = (*_UNCHECKED, *_WITH_VALUE, "--multirun", "-m", "--run", "-r")


def check_command_line(arguments: Sequence[str], tell: Callable[[], None] = lambda: None) -> list[str]:
    """Compose every value on the command line, and build the parts of a job from it; exit with status 2 and one sentence
    where that fails. A sweep's values are tried one at a time, not in all combinations.

    ``tell`` is called before torch is loaded, which takes seconds: words that Hydra cannot compose are refused before.

    Returns the arguments with flags first: Hydra's own parser refuses overrides on both sides of a flag. ``--config-dir`` becomes
    ``hydra.searchpath``, which composing a configuration and the jobs of a sweep understand as well.
    """
    flags, texts, folders = _divide(arguments)
    for folder in folders:
        if not Path(folder).expanduser().is_dir():
            _stop(f"--config-dir {folder}: {'not a folder' if Path(folder).expanduser().exists() else 'no such folder'}")
    try:
        return _check(flags, texts, folders, tell)
    except InputError as error:
        _stop(str(error))


def _check(flags: list[str], texts: list[str], folders: list[str], tell: Callable[[], None]) -> list[str]:
    overrides = parse(texts)
    if folders:
        named = [override for override in overrides if override.key_or_group == "hydra.searchpath"]
        places = [str(place) for override in named for place in cast(list, override.value())]
        texts = [*(text for text in texts if not text.startswith("hydra.searchpath=")), search_path([*folders, *places])]
        overrides = parse(texts)
    _check_once(overrides)
    for override in overrides:
        if override.key_or_group in ("hydra.run.dir", "hydra.sweep.dir") and override.value() in ("", None):
            _stop(f"{override.key_or_group}=: it is empty; give a folder")
    begin()
    if any(word in _UNCHECKED for word in flags):
        return [*flags, *texts]
    check_plugins(overrides)
    texts = [*texts, *search_words(overrides)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = parse(texts, GlobalHydra.instance().config_loader())
        _find_folders(overrides)
        for override in overrides:
            _check_group(override)
        multirun = any(word in ("--multirun", "-m") for word in flags) or _is_multirun(overrides)
        for override in overrides:
            if override.is_sweep_override() and not multirun:
                _stop(_several(override))
        for each in overrides:  # --cfg prints, and runs nothing
            if each.key_or_group in ("hydra/sweeper", "hydra/launcher") and not multirun and not {"--cfg", "-c"} & {*flags}:
                _stop(f"{each.input_line}: a {each.key_or_group.partition('/')[2]} runs several jobs, which needs -m")
        _check_added(overrides)
        whole = _check_intervals(overrides)
        choices = _choices(overrides, multirun)
        found: set[str] = set()
        for at, combination in enumerate(_combinations(choices)):
            config = composed(combination)
            if not at:
                tell()
            _check_study(config, combination)
            found |= set(_make(config, whole))
            if multirun and config.evaluation.latency:
                _check_alone(config)
            if multirun and not at:
                _check_folder(config)
        check_read(overrides, choices, found, lambda words: _make(composed(words), whole))
    return [*flags, *texts]


def _check_once(overrides: Sequence[Override]) -> None:
    """Hydra takes the last of two values without a word."""
    given: dict[tuple[str, str | None], Override] = {}
    for override in overrides:
        before = given.setdefault((override.key_or_group, override.package), override)
        if before.input_line != override.input_line and not override.is_force_add() and not override.is_delete():
            _stop(f"{before.input_line} and {override.input_line}: one option has two values; give one of them")


def _check_added(overrides: Sequence[Override]) -> None:
    """Nothing would read a key that Hydra does not have."""
    added = added_to_hydra(overrides)
    if not added:
        return
    config = composed([str(each.input_line) for each in overrides if each not in added and not each.is_sweep_override()])
    for override in added:
        said = no_hydra_key(override.key_or_group, config)
        if said is not None:
            _stop(f"{override.input_line}: {said}")


def _check_intervals(overrides: Sequence[Override]) -> list[str]:
    """How those of the intervals that hold all numbers would be written for whole ones."""
    intervals = [str(override.input_line) for override in overrides if is_interval(override)]
    if intervals:
        fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        if composed(fixed).hydra.sweeper._target_ == BASIC:
            _stop(
                f"{intervals[0]}: an interval has no list of values; add hydra/sweeper=optuna, which searches it, or write range() or a,b"
            )
    return [f"int({text.partition('=')[2]})" for text in intervals if "int(" not in text]


def _divide(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Flags with their values, overrides, and the folders of ``--config-dir``."""
    flags: list[str] = []
    texts: list[str] = []
    folders: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in _CONFIG_DIR:
            folder = next(words, None)
            if folder is None:
                _stop(f"{word}: it needs a folder")
            folders.append(folder)
        elif word.startswith("--config-dir="):
            folders.append(word.partition("=")[2])
        elif word in _WITH_VALUE:
            flags += [word, *(value for value in [next(words, None)] if value is not None)]
        elif word.startswith("-"):
            if word.partition("=")[0] not in _FLAGS and word[:2] not in _FLAGS:
                _stop(f"{word}: there is no such flag; python -m lrp.run --help lists all groups and options")
            flags.append(word)
        else:
            texts.append(word)
    return flags, texts, folders


def _find_folders(overrides: Sequence[Override]) -> None:
    """Let the options of the folders that the command line names be found."""
    named = [str(override.input_line) for override in overrides if override.key_or_group == "hydra.searchpath"]
    if not named:
        return
    sources = composed(named).hydra.runtime.config_sources
    use_folders(source.path for source in sources if source.schema == "file" and Path(source.path).is_dir())


def _check_group(override: Override) -> None:
    name = override.key_or_group
    options = option_files(name)
    if not options or name.startswith("hydra"):
        return
    values = sweep_values(override) if override.is_sweep_override() else [override.value()]
    for value in values:
        unset = value in (None, "null") and name in ("experiment", "study")
        if not unset and value not in list(options) and not override.is_delete():
            _stop(f"{name}={'null' if value is None else value}: {no_such_option(options)}{_share_hint(name, value)}")


def _several(override: Override) -> str:
    """What to do about a word with several values where one job is asked for."""
    line = str(override.input_line)
    right = None if option_files(override.key_or_group) else quoted(line)
    hint = "" if right is None else f"; one value that looks so is quoted: {right}"
    return f"{line}: several values are a sweep, which needs -m{hint}"


def _share_hint(group: str, value: object) -> str:
    """Where a number belongs that was given to the group of grids of sparsities."""
    try:
        return f"; a share of your own is sparsity.grid={float(str(value))}" if group == "sparsity" else ""
    except (TypeError, ValueError):
        return ""


def _is_multirun(overrides: Sequence[Override]) -> bool:
    """Whether the configuration itself asks for a multirun, as an experiment may."""
    return is_multirun([str(override.input_line) for override in overrides if not override.is_sweep_override()])


def _check_study(config: DictConfig, texts: Sequence[str]) -> None:
    """A study trains networks of its own: an option of the pruning that it does not read is an error, not nothing."""
    if config.study is None:
        return
    from lrp.config.build import study_options  # loads torch, after the words have been composed

    try:
        allowed = study_options(config) or ()
    except InputError as error:
        _stop(str(error))
    for text in texts:
        root = text.lstrip("+~").split("=")[0].split(".")[0].split("@")[0]
        if root not in allowed and not root.startswith("hydra"):
            study = config.hydra.runtime.choices.study
            _stop(f"{text}: study={study} has no such option; choose among {', '.join(sorted(allowed))}")


def _check_alone(config: DictConfig) -> None:
    """Jobs that measure latency do not run beside each other."""
    jobs = config.hydra.launcher.get("n_jobs", 1)
    if jobs != 1:
        _stop(f"evaluation.latency=true: jobs that run beside each other disturb it; set hydra.launcher.n_jobs=1, not {jobs}")


def _check_folder(config: DictConfig) -> None:
    """Jobs in folders that are numbered would refuse rows that are there: said once, before any of them."""
    folder = Path(str(config.hydra.sweep.dir))
    rows = next((file for pattern in ("results.csv", "*/results.csv") for file in folder.glob(pattern)), None)
    if rows is not None and config.resume is False and plain(config.hydra.sweep, resolve=False)["subdir"] == NUMBERED:
        _stop(f"hydra.sweep.dir={folder}: it holds finished rows; resume=true keeps them and computes the rest, or choose another folder")


def _choices(overrides: Sequence[Override], multirun: bool) -> list[list[str]]:
    """The words that each word stands for: one for each value of a sweep."""
    choices = []
    for override in overrides:
        if multirun and override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in sweep_values(override)])
        else:
            choices.append([str(override.input_line)])
    return choices


def _combinations(choices: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Each value of each sweep once, beside the first values of the others."""
    first = [values[0] for values in choices]
    yield first
    for i, values in enumerate(choices):
        for other in values[1:]:
            yield [*first[:i], other, *first[i + 1 :]]


def _make(config: DictConfig, whole: Sequence[str]) -> dict[str, str]:
    """Build the parts of a job; the options that nothing of it reads, with the sentence that says so.

    Raises:
        InputError: For a value that no part accepts.
    """
    from lrp.config.build import make_job  # loads torch, after the words have been composed

    try:
        with unread() as found:
            make_job(config, config.hydra)
        return found
    except InputError as error:
        raise InputError(str(error) + (f"; {whole[0]} draws whole numbers" if whole and "integer" in str(error) else "")) from error
    except OmegaConfBaseException as error:
        raise InputError(first_line(error)) from error


def _stop(sentence: str) -> NoReturn:
    print(f"lrp: {sentence}", file=sys.stderr)
    raise SystemExit(2)
