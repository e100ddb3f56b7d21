"""What lrp reads anew for each job and each network, and the tests of one process read once: none of it changes while they run."""

import copy
import functools
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lrp.config import build, method, parts
from lrp.config import composed as composing
from lrp.config.paths import CONF
from lrp.dataset.mnist_small import MnistSmall


def digits():
    """The embedded digits."""
    MnistSmall._stored = functools.cache(MnistSmall._stored)


def defaults():
    """The YAML files of lrp's own options, and what they say of an option: more than half of the time of ``lrp.compress`` on a network
    as small as those of the tests."""
    load, read = OmegaConf.load, parts.option_defaults
    loaded, found = functools.cache(load), functools.cache(read)

    @functools.cache
    def reads_the_job(group):
        return any("${" in file.read_text() for file in (CONF / group).glob("*.yaml"))

    def load_once(file):
        return copy.deepcopy(loaded(file)) if isinstance(file, Path) and file.is_relative_to(CONF) else load(file)

    def read_once(group, option, config=None):
        own = isinstance(option, str) and (CONF / group / f"{option}.yaml").exists()
        fixed = own and (config is None or not reads_the_job(group))
        return copy.deepcopy(found(group, option)) if fixed else read(group, option, config)

    OmegaConf.load = staticmethod(load_once)
    for module in (parts, method, build):
        module.option_defaults = read_once
    method.default_option = build.default_option = functools.cache(method.default_option)


def composed():
    """A patch of the check of command lines, of which many have the same words: for tests that write no file of options between two
    checks."""
    compose = composing.compose
    once = functools.cache(lambda name, words, **options: compose(name, list(words), **options))
    patch = pytest.MonkeyPatch()
    patch.setattr(composing, "compose", lambda name, overrides=(), **options: copy.deepcopy(once(name, tuple(overrides), **options)))
    return patch
