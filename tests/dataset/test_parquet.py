"""Data sets read from parquet, and clear errors for what is damaged."""

import io
import os

import numpy as np
import pandas as pd
import pytest
from helpers import png, write_parquet
from PIL import Image

from lrp.dataset.cifar10 import Cifar10
from lrp.dataset.mnist import Mnist
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


def write_both(folder, data, first, count=12):
    """A training and a test set of the same images, ``data``, of which the first is another."""
    table = pd.DataFrame({"image": [{"bytes": first, "path": None}, *[data] * (count - 1)], "label": [i % 10 for i in range(count)]})
    for split in ("train", "test"):
        table.to_parquet(folder / f"{split}.parquet")
    return folder


def as_png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


GREY, COLOUR = png(np.full((28, 28), 9, np.uint8)), png(np.full((32, 32, 3), 9, np.uint8))
white, green = (Image.new("P", (28, 28), 0) for _ in range(2))
white.putpalette([255, 255, 255])
green.putpalette([0, 255, 0])


@pytest.mark.parametrize("dataset, image, said", [
    (Mnist, Image.fromarray(np.full((28, 28), 65535, np.uint16)), "it is a 16 bit grey image of 28 x 28 pixels"),
    (Mnist, Image.new("RGB", (28, 28)), "it is a colour image of 28 x 28 pixels"),
    (Mnist, Image.new("L", (14, 56)), "it is a grey image of 14 x 56 pixels"),
    (Mnist, green, "it is a palette image of 28 x 28 pixels, with colours"),
    (Cifar10, Image.new("RGB", (1024, 1)), "it is a colour image of 1024 x 1 pixels"),
    (Cifar10, Image.new("L", (32, 32)), "it is a grey image of 32 x 32 pixels"),
    (Cifar10, Image.new("L", (32, 96)), "it is a grey image of 32 x 96 pixels"),
    (Cifar10, Image.new("RGBA", (32, 32)), "it is a colour with transparency image of 32 x 32 pixels"),
])  # fmt: skip
def test_other_kinds_of_images_are_named(tmp_path, dataset, image, said):
    write_both(tmp_path, GREY if dataset is Mnist else COLOUR, as_png(image))
    with pytest.raises(InputError, match=f"row 0 of train.parquet is not an image of .*: {said}"):
        dataset(path=str(tmp_path)).load()


@pytest.mark.parametrize("image", [white, Image.new("1", (28, 28), 1), Image.new("L", (28, 28), 255)])
def test_white_is_white(tmp_path, image):
    data = Mnist(path=str(write_both(tmp_path, GREY, as_png(image)))).load()
    assert int(data.test.images[0].max()) == 255 and int(data.test.images[0, 0, 2:-2, 2:-2].min()) == 255


def test_a_palette_is_expanded(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).convert("P")
    data = Cifar10(path=str(write_both(tmp_path, COLOUR, as_png(image)))).load()
    assert np.array_equal(data.test.images[0].permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("stored", [None, b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n"])
def test_what_is_stored_is_no_image(tmp_path, stored):
    write_both(tmp_path, COLOUR, stored)
    _fails(tmp_path, "row 0 of train.parquet is not an image of 32 x 32 x 3: it (has no bytes|is not an image in one of)")


def test_files_that_are_no_files(cifar):
    file = cifar[0] / "test-00000-of-00001.parquet"
    file.unlink()
    os.mkfifo(file)
    _fails(cifar[0], "it is a named pipe, not a file")
    file.unlink()
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    _fails(cifar[0], "run git lfs pull")


def test_more_than_fits_into_memory(cifar, monkeypatch):
    monkeypatch.setattr("lrp.dataset.parquet.MOST_ROWS", 59)
    _fails(cifar[0], "train-00001-of-00002.parquet has 20 rows; a train set may have 59")
    monkeypatch.undo()
    monkeypatch.setattr("lrp.dataset.parquet.MOST_BYTES", 100)
    _fails(cifar[0], "train-00000-of-00002.parquet holds .* bytes for 40 images; 100 an image are allowed")


def test_labels_that_are_no_integers(cifar):
    folder, pixels, _ = cifar
    for labels in ([True] * 20, [1.0] * 20, ["1"] * 20, [None] * 20):
        write_parquet(folder, "test-00000-of-00001.parquet", pixels[60:], labels)
        _fails(folder, "labels that are not integers")
