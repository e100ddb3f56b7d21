"""What the names of folders and files say."""

import time

import pytest

from lrp.dataset.splits import by_rank, foreign, split_word


@pytest.mark.parametrize("name, said", [
    ("train", ("train", "train")), ("TRAIN", ("train", "train")), ("Training", ("train", "training")), ("train_set", ("train", "train")),
    ("TrainSet", ("train", "train")), ("training_images", ("train", "training")), ("images-train", ("train", "train")),
    ("Test", ("test", "test")), ("Testing", ("test", "testing")), ("test_set", ("test", "test")), ("VAL", ("test", "val")),
    ("val2017", ("test", "val")), ("dev", ("test", "dev")), ("Validation Data", ("test", "validation")),
    ("cat", None), ("trains", None), ("train station", None), ("testament", None), ("valley", None), ("2017", None), ("", None),
])  # fmt: skip
def test_words(name, said):
    assert split_word(name) == said


@pytest.mark.parametrize("name", ["0" * 250 + "x", "dataset" * 36 + "x", "train" + "_1" * 120 + "x"])
def test_no_name_takes_long(name):
    start = time.process_time()
    assert split_word(name) is None
    assert time.process_time() - start < 1


def test_the_first_word_counts():
    assert by_rank(["dev", "VAL", "Test", "cat", "test", "train"], "test") == [["Test", "test"], ["VAL"], ["dev"]]


def test_what_systems_leave_is_not_the_users():
    assert all(map(foreign, [".DS_Store", "._cat.png", ".ipynb_checkpoints", "Thumbs.db", "__MACOSX", "@eaDir", "desktop.ini"]))
    assert not any(map(foreign, ["cat", "cat.png", "_cat", "macosx"]))
