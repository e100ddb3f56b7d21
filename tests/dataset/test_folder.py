"""Folders of images: divided, scaled, refused."""

import logging
import os

import numpy as np
import pytest
import torch
from helpers import refused, write_images
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


def load(folder, size=16):
    return ImageFolder(path=str(folder), size=size).load()


@pytest.mark.parametrize("train, test", [
    ("Train", "Test"), ("TRAIN", "VAL"), ("Training", "Testing"), ("train", "dev"), ("train_set", "test_set"), ("train2017", "val2017"),
])  # fmt: skip
def test_parts_under_other_names(tmp_path, train, test):
    write_images(tmp_path, (train, test), count=4)
    data = load(tmp_path)
    assert (data.num_classes, len(data.train) + len(data.validation), len(data.test)) == (3, 12, 12)


def test_parts_under_names_that_nobody_knows(tmp_path):
    """Their folders would be the classes."""
    write_images(tmp_path / "first", ("aa", "bb"), count=4)
    refused(lambda: load(tmp_path / "first"), "aa holds folders of images", "name the parts of a data set train and test")
    write_images(tmp_path / "second", ("Test",), count=4)
    write_images(tmp_path / "second", count=4)
    refused(lambda: load(tmp_path / "second"), "has Test, but needs both a folder train and a folder test")
    write_images(tmp_path / "third", ("train", "test", "Test"), count=4)
    refused(lambda: load(tmp_path / "third"), "Test and test, which say the same")


def test_parts_without_classes(tmp_path):
    write_images(tmp_path, classes=("train", "test"), count=12)
    refused(lambda: load(tmp_path), "must hold one folder of images per class, found no folder in train")


def test_a_train_is_a_vehicle_too(tmp_path):
    write_images(tmp_path, classes=("bus", "car", "train"), count=12)
    assert load(tmp_path).num_classes == 3


def test_a_part_that_is_not_read_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_images(tmp_path, ("train", "val", "test"), count=4)
    assert len(load(tmp_path).test) == 12 and "those in train and test; val is not read" in caplog.text


def test_what_systems_leave_is_not_looked_at(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_images(tmp_path)
    before = load(tmp_path).fingerprint()
    for name in (".DS_Store", "a/._0.png", "a/.hidden.png", "a/Thumbs.db", ".ipynb_checkpoints/0.png", "a/.ipynb_checkpoints/0.png",
                 "__MACOSX/a/0.png", "a/@eaDir/0.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    assert load(tmp_path).fingerprint() == before and not caplog.text
    (tmp_path / "a" / "notes.txt").touch()
    assert load(tmp_path).fingerprint() == before and "files without the suffix of an image are not read: notes.txt" in caplog.text


@pytest.mark.parametrize("link, to", [("a/again", "a"), ("a/up", "."), ("a/other", "b"), ("d", "a")])
def test_links_that_lead_into_one_folder_twice(tmp_path, link, to):
    write_images(tmp_path)
    (tmp_path / link).symlink_to(tmp_path / to)
    refused(lambda: load(tmp_path), "are one folder (a link?), so its images would be read twice")


def test_a_link_is_as_good_as_a_folder(tmp_path):
    write_images(tmp_path / "there")
    write_images(tmp_path / "here", classes=("a", "b"))
    (tmp_path / "here" / "c").symlink_to(tmp_path / "there" / "c")
    assert load(tmp_path / "here").fingerprint() == load(tmp_path / "there").fingerprint()


@pytest.mark.parametrize("make, sentence", [
    (lambda file: os.mkfifo(file), "it is a named pipe, not a file"),
    (lambda file: file.symlink_to("/dev/zero"), "it is a device, not a file"),
    (lambda file: file.symlink_to("nowhere"), "no such file"),
    (lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "run git lfs pull"),
    (lambda file: Image.fromarray(np.full((20, 20), 65535, np.uint16)).save(file), "16 bit grey image of 20 x 20 pixels"),
    (lambda file: Image.new("RGB", (1, 20_000)).save(file), "which dataset.size=224 would scale to 224 x 4480000"),
])  # fmt: skip
def test_files_that_are_no_images_to_use(tmp_path, make, sentence):
    write_images(tmp_path, count=4)
    make(tmp_path / "a" / "-.png")  # the first that is read
    refused(lambda: load(tmp_path, 224), "dataset.path=", "a/-.png", sentence)
