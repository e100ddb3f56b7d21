"""Folders of images: divided, scaled, refused."""

import numpy as np
import pytest
import torch
from helpers import write_images
from PIL import Image

from lrp.dataset.folder import ImageFolder
from lrp.errors import InputError


def test_folders_of_images(tmp_path):
    """One folder is divided once and for all; train and test (or val) are taken as they are; images are scaled and cut."""
    write_images(tmp_path / "one")
    data = ImageFolder(path=str(tmp_path / "one"), size=16).load()
    assert data.num_classes == 3 and data.train.images.shape[1:] == (3, 16, 16) and data.train.images.dtype == torch.uint8
    assert [len(part) for part in (data.train, data.validation, data.test)] == [65, 7, 18]
    parts = [set(part.index.tolist()) for part in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == 90
    write_images(tmp_path / "two", ("train", "val"), count=10)
    data = ImageFolder(path=str(tmp_path / "two"), size=16).load()
    assert (len(data.train) + len(data.validation), len(data.test)) == (30, 30)
    file = tmp_path / "flat" / "a" / "0.png"
    pixels = np.random.default_rng(1).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    for i in range(12):
        file = tmp_path / "flat" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    data = ImageFolder(path=str(tmp_path / "flat"), size=32).load()
    assert np.array_equal(data.train.images[0].permute(1, 2, 0).numpy(), pixels[:, 16:48])  # the middle, not scaled
    assert data.normalise(data.train.images[:1]).mean((0, 2, 3)).abs().max() < 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: None, "dataset.size=null: the images have different sizes"),
        (lambda f: (f / "a" / "0.png").write_bytes(b"no image"), "0.png is not an image"),
        (lambda f: (f / "empty").mkdir(), "must hold one folder of images per class"),
        (lambda f: (f / "train").mkdir(), "needs both a folder train and a folder test"),
    ],
)
def test_bad_folders(tmp_path, change, sentence):
    write_images(tmp_path / "images")
    change(tmp_path / "images")
    with pytest.raises(InputError, match=sentence):
        ImageFolder(path=str(tmp_path / "images"), size=None if "sizes" in sentence else 16).load()
    for path in (None, str(tmp_path / "nowhere"), str(tmp_path)):
        with pytest.raises(InputError, match="dataset.path="):
            ImageFolder(path=path, size=16).load()
