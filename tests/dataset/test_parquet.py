"""Data sets read from parquet, and clear errors for what is damaged."""

import numpy as np
import pandas as pd
import pytest
from helpers import write_parquet

from lrp.dataset.cifar10 import Cifar10
from lrp.errors import InputError


def test_parquet_gives_every_pixel_in_order(cifar):
    folder, pixels, labels = cifar
    data = Cifar10(path=str(folder)).load()
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 20)
    for part, offset in ((data.train, 0), (data.validation, 0), (data.test, 60)):
        where = part.index.numpy() + offset
        assert np.array_equal(part.images.permute(0, 2, 3, 1).numpy(), pixels[where])
        assert np.array_equal(part.labels.numpy(), labels[where])
    assert sorted([*data.train.index.tolist(), *data.validation.index.tolist()]) == list(range(60))


def _fails(folder, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        Cifar10(path=str(folder)).load()
    assert "\n" not in str(error.value)


def test_missing_folder(tmp_path):
    _fails(tmp_path / "nowhere", "dataset.path=.*no such folder")


def test_folder_without_data(tmp_path):
    _fails(tmp_path, "dataset.path=.*torchvision could not read cifar10")


def test_missing_shard(cifar):
    (cifar[0] / "train-00000-of-00002.parquet").unlink()
    _fails(cifar[0], "shards are incomplete")


def test_missing_split(cifar):
    (cifar[0] / "test-00000-of-00001.parquet").unlink()
    _fails(cifar[0], "no test-")


@pytest.mark.parametrize("kept", [0, 3, 500, -1])
def test_truncated_file(cifar, kept):
    file = cifar[0] / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:kept])
    _fails(cifar[0], "train-00001-of-00002.parquet cannot be read as parquet")


@pytest.mark.parametrize("label", [10, -1])
def test_labels_out_of_range(cifar, label):
    folder, pixels, _ = cifar
    write_parquet(folder, "test-00000-of-00001.parquet", pixels[60:], [label] * 20)
    _fails(folder, r"labels that are not integers in \[0, 9\]")


def test_wrong_columns(cifar):
    folder, pixels, labels = cifar
    write_parquet(folder, "test-00000-of-00001.parquet", pixels[60:], labels[60:], column="picture")
    _fails(folder, "has the columns picture, label, but needs img or image")


def test_wrong_image_size_and_broken_image(cifar):
    folder, pixels, labels = cifar
    write_parquet(folder, "test-00000-of-00001.parquet", pixels[60:, :28], labels[60:])
    _fails(folder, "row 0 of test-00000-of-00001.parquet is not an image of 32 x 32 x 3")
    table = pd.DataFrame({"img": [{"bytes": b"no image", "path": None}] * 20, "label": [0] * 20})
    table.to_parquet(folder / "test-00000-of-00001.parquet")
    _fails(folder, "is not an image")
