"""Settings of every test, and networks and data that tests ask for by name.

Nothing slow is imported here: the process that only hands tests to others (``-n 2``) reads this file too, and would load torch for nothing.
"""

import dataclasses
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as fast here, and not a hundred times slower where something else uses the cores

import pytest

pytest.register_assert_rewrite("helpers", "problems", "deployed", "shell")


def pytest_collectstart(collector):
    """What a test module draws as it is imported is the same whichever modules came before it."""
    if isinstance(collector, pytest.Module):
        import torch

        torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _quick():
    import once
    import torch

    torch.set_num_threads(1)
    once.digits()
    once.defaults()


@pytest.fixture(autouse=True)
def _seed():
    import torch

    torch.manual_seed(0)


def made(name):
    """One of the networks of ``cases``, with statistics of its own."""
    import cases
    from helpers import randomise

    return randomise(getattr(cases, name)())


def vgg(width):
    from helpers import randomise

    from lrp.model.vgg16 import VGG16

    return randomise(VGG16(width=width))


@pytest.fixture
def small_vgg():
    return vgg(1 / 16)


@pytest.fixture
def narrow_vgg():
    return vgg(1 / 32)


@pytest.fixture
def residual():
    return made("Residual")


@pytest.fixture
def depthwise():
    return made("Depthwise")


@pytest.fixture
def tokens():
    return made("Tokens")


@pytest.fixture
def chain():
    return made("Chain")


@pytest.fixture
def untraceable():
    return made("Untraceable")


@pytest.fixture
def keywords():
    return made("Keywords")


@pytest.fixture
def encoder():
    return made("Encoder")


@pytest.fixture
def net():
    return made("PlainAndGrouped")


@pytest.fixture(scope="module")
def composed_once():
    import once

    patch = once.composed()
    yield
    patch.undo()


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One cache of trained networks and scores for all command lines."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def x():
    """Inputs of ``net``."""
    import torch

    return torch.randn(9, 3, 6, 5).double()


@pytest.fixture(scope="session")
def embedded():
    """The digits that come with lrp."""
    from lrp.dataset.mnist_small import MnistSmall

    return MnistSmall().load()


@pytest.fixture(scope="session")
def tiny(embedded):
    """The same, cut down so that an epoch takes a moment."""
    import torch

    few = torch.arange(96)
    parts = {name: getattr(embedded, name).take(few) for name in ("train", "validation", "test")}
    return dataclasses.replace(embedded, **parts)


@pytest.fixture(scope="session")
def data():
    from helpers import made_data

    return made_data()


@pytest.fixture
def cifar(tmp_path):
    """60 training images in two shards and 20 test images, as the Hub serves them."""
    import numpy as np
    from helpers import write_parquet

    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, 80)
    folder = tmp_path / "cifar10"
    write_parquet(folder, "train-00000-of-00002.parquet", pixels[:40], labels[:40])
    write_parquet(folder, "train-00001-of-00002.parquet", pixels[40:60], labels[40:60])
    write_parquet(folder, "test-00000-of-00001.parquet", pixels[60:], labels[60:])
    return folder, pixels, labels


@pytest.fixture(autouse=True)
def folders_of_options():
    """The folders of options that a test names are forgotten after it: the names in them would be among those of the next."""
    from lrp.config import paths

    before = [*paths._named]
    yield
    paths._named[:] = before
