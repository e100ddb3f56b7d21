"""Words composed to a configuration, or one sentence for the word that is to blame."""

from __future__ import annotations

import yaml
from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from lrp.config.hydra_keys import instead, no_hydra_key
from lrp.config.parts import plain
from lrp.errors import InputError, first_line

_made: dict[tuple[str, ...], DictConfig] = {}  # of one command line: Hydra takes a third of a second for each


def begin() -> None:
    """Another command line is composed: files may have changed."""
    _made.clear()


def _compose(texts: list[str]) -> DictConfig:
    key = tuple(texts)
    if key not in _made:
        _made[key] = compose("config", overrides=texts, return_hydra_config=True)
    return _made[key]


def is_multirun(texts: list[str]) -> bool:
    """Whether a configuration itself asks for a multirun, as an experiment may. One that cannot be composed does not: others tell of it."""
    try:
        return str(_compose(texts).hydra.mode) == "RunMode.MULTIRUN"
    except (HydraException, OmegaConfBaseException, ValueError):  # a ValueError: a name in the place of a list's index
        return False


def composed(texts: list[str]) -> DictConfig:
    """What these words describe, with Hydra's own node.

    Raises:
        InputError: For the word that cannot be used.
    """
    try:
        return _compose(texts)
    except yaml.YAMLError as error:
        raise InputError(f"{' '.join(texts)}: a YAML file cannot be read ({' '.join(str(error).split())})") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        chosen = [text for text in texts if text.startswith("hydra.searchpath")]
        rest = [text for text in texts if text not in chosen]
        # a choice, such as model=huggingface or hydra/launcher=joblib, has options of its own: these are tried beside it
        rest.sort(key=lambda text: (not text.startswith("hydra/"), "." in text.split("=")[0]))
        for text in [*chosen, *rest]:  # find the one to blame: without the others it fails too
            beside = [word for word in chosen if word != text]
            try:
                compose("config", overrides=[*beside, text], return_hydra_config=True)
            except (HydraException, OmegaConfBaseException, ValueError) as alone:
                raise InputError(_explain(text, alone, beside)) from alone
            if "." not in text.split("=")[0]:
                chosen.append(text)
        raise InputError(f"{' '.join(texts)}: {first_line(error)}") from error


def _explain(text: str, error: Exception, beside: list[str]) -> str:
    key = text.split("=")[0].lstrip("+~")
    if text.startswith("hydra."):
        said = no_hydra_key(key, compose("config", overrides=beside, return_hydra_config=True))
        if said is not None:
            return f"{text}: {said}"
    message = first_line(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConfigKeyError | ConfigAttributeError):
        cause = cause.__cause__
    if cause is not None:
        known = _known(beside)
        node = key.rsplit(".", 1)[0] + "." if "." in key else ""
        allowed = [name for name in known if name.startswith(node) and (node or "." not in name)]
        return f"{text}: no option {key}{instead(key, known, allowed)}"
    cause = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException):
            message = first_line(cause)
        cause = cause.__cause__
    return f"{text}: {message[:1].lower() + message[1:]}"


def _known(beside: list[str]) -> list[str]:
    """All groups and options of the configuration with these choices."""
    config = plain(compose("config", overrides=beside), resolve=False)
    names: list[str] = []

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            if key != "_target_":
                names.append(prefix + key)
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(config, "")
    return [*names, "experiment"]
