"""MNIST and the embedded digits."""

import gzip
import os
import struct
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refused, write_parquet

from lrp.dataset.mnist import Mnist
from lrp.dataset.mnist_small import STORED, MnistSmall


def test_the_column_may_be_image_and_mnist_is_padded(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    write_parquet(tmp_path, "train-00000-of-00001.parquet", pixels, [i % 10 for i in range(30)], "image")
    write_parquet(tmp_path, "test-00000-of-00001.parquet", pixels, [i % 10 for i in range(30)], "image")
    data = Mnist(path=str(tmp_path)).load()
    assert data.test.images.shape == (30, 1, 32, 32)
    assert np.array_equal(data.test.images[:, 0, 2:-2, 2:-2].numpy(), pixels) and int(data.test.images[:, :, :2].max()) == 0


def write_idx(raw, split, pixels, labels):
    for name, header, body in (
        ("images-idx3-ubyte", struct.pack(">IIII", 2051, *pixels.shape), pixels),
        ("labels-idx1-ubyte", struct.pack(">II", 2049, len(labels)), labels),
    ):
        (raw / f"{split}-{name}").write_bytes(header + body.tobytes())
        (raw / f"{split}-{name}.gz").write_bytes(gzip.compress(header + body.tobytes()))


@pytest.fixture
def raw(tmp_path):
    """(the folder of idx files, what they hold)"""
    generator = np.random.default_rng(1)
    raw, stored = tmp_path / "MNIST" / "raw", {}
    raw.mkdir(parents=True)
    for split, count in (("train", 50), ("t10k", 20)):
        stored[split] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8), generator.integers(0, 10, count, dtype=np.uint8)
        write_idx(raw, split, *stored[split])
    return raw, stored


def test_torchvision_layout(tmp_path, raw):
    """The idx files that torchvision's download leaves give what parquet gives."""
    data, stored = Mnist(path=str(tmp_path)).load(), raw[1]
    assert np.array_equal(data.test.images[:, 0, 2:-2, 2:-2].numpy(), stored["t10k"][0])
    assert np.array_equal(data.train.labels.numpy(), stored["train"][1][data.train.index.numpy()])


def test_torchvision_layout_of_other_images(tmp_path, raw):
    pixels, labels = raw[1]["t10k"]
    for change, sentence in (
        ((pixels.reshape(20, 14, 56), labels), "pixels of shape (20, 14, 56) for 20 labels, not mnist"),
        ((pixels[:10], labels), "pixels of shape (10, 28, 28) for 20 labels, not mnist"),
        ((pixels, labels + 1), "labels that are not integers in [0, 9]"),
    ):
        write_idx(raw[0], "t10k", *change)
        refused(lambda: Mnist(path=str(tmp_path)).load(), "dataset.path=", sentence)
    (raw[0] / "t10k-labels-idx1-ubyte").unlink()
    os.mkfifo(raw[0] / "t10k-labels-idx1-ubyte")
    refused(lambda: Mnist(path=str(tmp_path)).load(), "t10k-labels-idx1-ubyte: it is a named pipe")


def test_embedded_digits_are_divided_once_and_for_all(embedded):
    data = embedded
    assert (len(data.train), len(data.validation), len(data.test)) == (3600, 400, 1000)
    parts = [set(p.index.tolist()) for p in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == 5000


def test_the_digits_that_come_with_lrp():
    """Five hundred of each class, in every build of the package, in two parts that do not depend on the seed."""
    parts = MnistSmall()._stored()
    assert [len(part) for part in parts] == [4000, 1000]
    assert torch.cat([part.labels for part in parts]).bincount().tolist() == [500] * 10
    listed = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["lrp.dataset"]
    assert STORED.name in listed and STORED.with_suffix(".txt").name in listed and STORED.with_suffix(".txt").exists()
