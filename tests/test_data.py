"""Data sets read from parquet and from torchvision's layout, their division, and clear errors for what is damaged."""

import gzip
import io
import struct

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lrp.dataset.cifar10 import Cifar10
from lrp.dataset.mnist import Mnist
from lrp.dataset.mnist_small import MnistSmall
from lrp.errors import InputError


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(folder, name, pixels, labels, column="img"):
    folder.mkdir(exist_ok=True, parents=True)
    pd.DataFrame({column: [png(p) for p in pixels], "label": labels}).to_parquet(folder / name)


@pytest.fixture
def cifar(tmp_path):
    """60 training images in two shards and 20 test images, as the Hub serves them."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (80, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, 80)
    folder = tmp_path / "cifar10"
    write(folder, "train-00000-of-00002.parquet", pixels[:40], labels[:40])
    write(folder, "train-00001-of-00002.parquet", pixels[40:60], labels[40:60])
    write(folder, "test-00000-of-00001.parquet", pixels[60:], labels[60:])
    return folder, pixels, labels


def test_parquet_gives_every_pixel_in_order(cifar):
    folder, pixels, labels = cifar
    data = Cifar10(path=str(folder)).load()
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 20)
    for part, offset in ((data.train, 0), (data.validation, 0), (data.test, 60)):
        where = part.index.numpy() + offset
        assert np.array_equal(part.images.permute(0, 2, 3, 1).numpy(), pixels[where])
        assert np.array_equal(part.labels.numpy(), labels[where])
    assert sorted([*data.train.index.tolist(), *data.validation.index.tolist()]) == list(range(60))


def test_the_column_may_be_image_and_mnist_is_padded(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    write(tmp_path, "train-00000-of-00001.parquet", pixels, [i % 10 for i in range(30)], "image")
    write(tmp_path, "test-00000-of-00001.parquet", pixels, [i % 10 for i in range(30)], "image")
    data = Mnist(path=str(tmp_path)).load()
    assert data.test.images.shape == (30, 1, 32, 32)
    assert np.array_equal(data.test.images[:, 0, 2:-2, 2:-2].numpy(), pixels) and int(data.test.images[:, :, :2].max()) == 0


def test_torchvision_layout(tmp_path):
    """The idx files that torchvision's download leaves give what parquet gives."""
    generator = np.random.default_rng(1)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    stored = {}
    for split, count in (("train", 50), ("t10k", 20)):
        pixels, labels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8), generator.integers(0, 10, count, dtype=np.uint8)
        stored[split] = (pixels, labels)
        for name, header, body in (
            ("images-idx3-ubyte", struct.pack(">IIII", 2051, count, 28, 28), pixels), ("labels-idx1-ubyte", struct.pack(">II", 2049, count), labels)
        ):  # fmt: skip
            (raw / f"{split}-{name}").write_bytes(header + body.tobytes())
            (raw / f"{split}-{name}.gz").write_bytes(gzip.compress(header + body.tobytes()))
    data = Mnist(path=str(tmp_path)).load()
    assert np.array_equal(data.test.images[:, 0, 2:-2, 2:-2].numpy(), stored["t10k"][0])
    assert np.array_equal(data.train.labels.numpy(), stored["train"][1][data.train.index.numpy()])


def test_embedded_digits_are_divided_once_and_for_all():
    data = MnistSmall().load()
    assert (len(data.train), len(data.validation), len(data.test)) == (3600, 400, 1000)
    parts = [set(p.index.tolist()) for p in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == 5000
    torch.manual_seed(123)
    assert torch.equal(MnistSmall().load().test.index, data.test.index)


def test_calibration_depends_on_its_seed_alone():
    data = MnistSmall().load()
    first, again, other = (data.calibration(100, seed).index for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and len(set(first.tolist())) == 100
    assert torch.equal(data.calibration(30, 0).index, first[:30])
    assert set(first.tolist()) <= set(data.train.index.tolist())
    with pytest.raises(InputError, match="calibration.images=3601: .*3600"):
        data.calibration(3601, 0)


def test_augmentation_crops_and_mirrors(cifar):
    data = Cifar10(path=str(cifar[0]), flip=True, crop=4).load()
    images = data.train.images[:32]
    out = data.augment(images, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (4,) * 4)
    mirrored = 0
    for i in range(32):
        crops = {(t, l): padded[i, :, t : t + 32, l : l + 32] for t in range(9) for l in range(9)}
        plain = any(torch.equal(out[i], crop) for crop in crops.values())
        flipped = any(torch.equal(out[i], crop.flip(2)) for crop in crops.values())
        assert plain or flipped
        mirrored += flipped and not plain
    assert 5 < mirrored < 27
    assert torch.equal(out, data.augment(images, torch.Generator().manual_seed(0)))


def test_normalise():
    data = MnistSmall().load()
    pixel = torch.full((1, 1, 1, 1), 51, dtype=torch.uint8)
    assert float(data.normalise(pixel)) == pytest.approx((0.2 - 0.1307) / 0.3081, rel=1e-6)


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
    write(folder, "test-00000-of-00001.parquet", pixels[60:], [label] * 20)
    _fails(folder, r"labels that are not integers in \[0, 9\]")


def test_wrong_columns(cifar):
    folder, pixels, labels = cifar
    write(folder, "test-00000-of-00001.parquet", pixels[60:], labels[60:], column="picture")
    _fails(folder, "has the columns picture, label, but needs img or image")


def test_wrong_image_size_and_broken_image(cifar):
    folder, pixels, labels = cifar
    write(folder, "test-00000-of-00001.parquet", pixels[60:, :28], labels[60:])
    _fails(folder, "row 0 of test-00000-of-00001.parquet is not an image of 32 x 32 x 3")
    table = pd.DataFrame({"img": [{"bytes": b"no image", "path": None}] * 20, "label": [0] * 20})
    table.to_parquet(folder / "test-00000-of-00001.parquet")
    _fails(folder, "is no image")
