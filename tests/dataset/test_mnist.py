"""MNIST and the embedded digits."""

import gzip
import struct

import numpy as np
from helpers import write_parquet

from lrp.dataset.mnist import Mnist


def test_the_column_may_be_image_and_mnist_is_padded(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    write_parquet(tmp_path, "train-00000-of-00001.parquet", pixels, [i % 10 for i in range(30)], "image")
    write_parquet(tmp_path, "test-00000-of-00001.parquet", pixels, [i % 10 for i in range(30)], "image")
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
            ("images-idx3-ubyte", struct.pack(">IIII", 2051, count, 28, 28), pixels),
            ("labels-idx1-ubyte", struct.pack(">II", 2049, count), labels),
        ):
            (raw / f"{split}-{name}").write_bytes(header + body.tobytes())
            (raw / f"{split}-{name}.gz").write_bytes(gzip.compress(header + body.tobytes()))
    data = Mnist(path=str(tmp_path)).load()
    assert np.array_equal(data.test.images[:, 0, 2:-2, 2:-2].numpy(), stored["t10k"][0])
    assert np.array_equal(data.train.labels.numpy(), stored["train"][1][data.train.index.numpy()])


def test_embedded_digits_are_divided_once_and_for_all(embedded):
    data = embedded
    assert (len(data.train), len(data.validation), len(data.test)) == (3600, 400, 1000)
    parts = [set(p.index.tolist()) for p in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == 5000
