"""Which parquet files are which part, in the layouts of the Hub."""

import logging
import os

import pytest
from helpers import refused

from lrp.dataset.shards import find_shards, parquet_files


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder, split):
    return [str(file.relative_to(folder)) for file in find_shards(folder, split)]


@pytest.mark.parametrize("train, test", [
    (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], ["test-00000-of-00001.parquet"]),
    (["data/train-00000-of-00001-0123456789abcdef.parquet"], ["data/test-00000-of-00001-fedcba9876543210.parquet"]),
    (["plain_text/train/0000.parquet", "plain_text/train/0001.parquet"], ["plain_text/test/0000.parquet"]),
    (["Train.parquet"], ["Test.parquet"]),
    (["TRAIN/a.PARQUET"], ["VAL/a.PARQUET"]),
    (["train.parquet"], ["validation-00000-of-00001.parquet"]),
    (["train_1.parquet", "train_2.parquet"], ["dev_1.parquet"]),
    (["cifar10-train.parquet"], ["cifar10-test.parquet"]),
    (["train_small.parquet"], ["test_small.parquet"]),
    (["train.parquet/part-0.parquet"], ["test.parquet/part-0.parquet"]),
])  # fmt: skip
def test_layouts(tmp_path, train, test):
    files(tmp_path, *train, *test)
    assert found(tmp_path, "train") == train and found(tmp_path, "test") == test


@pytest.mark.parametrize("names", [
    ["a/train.parquet", "b/train.parquet"],
    ["a/train/0000.parquet", "b/train/0000.parquet"],
    ["train.parquet", "Train.parquet"],
    ["train.parquet", "train_small.parquet"],
    ["train.parquet", "train-00000-of-00001.parquet"],
    ["train/0000.parquet", "train/0002.parquet"],
    ["train2017.parquet", "train2018.parquet"],
    ["plain_text/train/0000.parquet", "plain_text/train-00000-of-00001.parquet"],
])  # fmt: skip
def test_several_sets_are_not_joined(tmp_path, names):
    refused(lambda: find_shards(files(tmp_path, *names), "train"), "several train sets", *sorted(names))


@pytest.mark.parametrize("names", [
    ["a/train-00000-of-00001.parquet", "b/train-00000-of-00001.parquet"],
    ["train-00000-of-00002.parquet"],
    ["train-00000-of-00002.parquet", "train-00001-of-00003.parquet"],
])  # fmt: skip
def test_counted_shards_are_complete(tmp_path, names):
    refused(lambda: find_shards(files(tmp_path, *names), "train"), "the train shards are incomplete or doubled")


def test_a_test_set_goes_before_a_validation_set(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    files(tmp_path, "train.parquet", "validation.parquet")
    assert found(tmp_path, "test") == ["validation.parquet"] and "no test set, so its validation set is taken" in caplog.text
    files(tmp_path, "test.parquet")
    assert found(tmp_path, "test") == ["test.parquet"]


def test_names_that_say_nothing(tmp_path):
    refused(
        lambda: find_shards(files(tmp_path, "a.parquet", "partial-train/0.parquet"), "train"), "no train-*.parquet in it, only", "a.parquet"
    )


def test_hidden_files_are_no_data(tmp_path):
    files(tmp_path, "train.parquet", "._train.parquet", ".cache/huggingface/train.parquet", "__MACOSX/train.parquet")
    os.mkdir(tmp_path / "folder.parquet")
    assert parquet_files(tmp_path) == [tmp_path / "train.parquet"]
