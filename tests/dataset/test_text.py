"""Text in stretches of tokens."""

import dataclasses

import pytest
import torch

from lrp.config.build import compose_job
from lrp.dataset.text import Text
from lrp.errors import InputError


def test_labels_are_the_tokens_that_follow(tmp_path):
    text = "".join(chr(97 + i % 26) for i in range(1000)) + "é"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    data = Text(path=str(tmp_path / "a.txt"), length=9).load()
    tokens = torch.tensor(list(text.encode("utf-8")))
    cut = len(tokens) - int(0.1 * len(tokens))
    assert data.num_classes == 256 and data.train.images.shape[1:] == (9,)
    for part in (data.train, data.validation, data.test):
        begin = cut if part is data.test else 0
        for inputs, labels, index in zip(part.images, part.labels, part.index):
            start = begin + 9 * int(index)
            assert torch.equal(inputs, tokens[start : start + 9]) and torch.equal(labels, tokens[start + 1 : start + 10])
    together = sorted([*data.train.index.tolist(), *data.validation.index.tolist()])
    assert together == list(range((cut - 1) // 9)) and len(data.test) == (len(tokens) - cut - 1) // 9
    assert torch.equal(data.network_input(data.test.images, torch.device("cpu")), data.test.images)


def test_folders_and_another_text_for_the_test(tmp_path):
    for name, letter in (("b", "y"), ("a", "x")):
        (tmp_path / f"{name}.txt").write_text(letter * 300)
    (tmp_path / "other.md").write_text("z" * 200)
    data = Text(path=str(tmp_path), test_path=str(tmp_path / "other.md"), length=20).load()
    whole = data.undivided().images.flatten()
    assert bytes(whole.tolist())[:300] == b"x" * 300 and set(data.test.images.flatten().tolist()) == {ord("z")}


def test_the_text_that_comes_with_python():
    data = Text().load()
    assert len(data.train) > 2000 and data.train.images.shape[1] == 128
    assert "statement" in bytes(data.test.images.flatten().tolist()).decode("utf-8", "replace")


def test_a_tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "the": 1, "cat": 2, "sat": 3}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("the cat sat quietly " * 60)
    for tokenizer in (tmp_path, tmp_path / "tokenizer.json"):
        data = Text(path=str(tmp_path / "a.txt"), length=4, tokenizer=str(tokenizer)).load()
        assert data.num_classes == 4 and data.test.images[0].tolist() == [1, 2, 3, 0] and data.test.labels[0].tolist() == [2, 3, 0, 1]
    of_network = Text(path=str(tmp_path / "a.txt"), length=4, tokenizer_of=str(tmp_path))  # which has one
    assert of_network.load().num_classes == 4
    assert dataclasses.replace(of_network, tokenizer=None).load().num_classes == 256


def test_a_network_without_a_tokenizer_reads_bytes_and_that_is_said(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("the cat sat quietly " * 60)
    assert Text(path=str(tmp_path / "a.txt"), length=4, tokenizer_of=str(tmp_path)).load().num_classes == 256
    assert "a token is a byte, since" in caplog.text


def test_the_networks_folder_is_where_the_tokenizer_is():
    words = ["dataset=text", "model=huggingface", "model.path=here"]
    assert compose_job(*words).dataset.tokenizer_of == "here"
    assert compose_job("dataset=text", "model=small_lm").dataset.tokenizer_of is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "nowhere.txt"}, "dataset.path=nowhere.txt: "),
        ({"path": "{}/latin.txt"}, "latin.txt is not UTF-8 text"),
        ({"path": "{}/empty"}, "the folder holds no .txt file"),
        (
            {"path": "{}/short.txt"},
            "the text holds 90 tokens for training and 10 for the test; at least 20 and 1 stretches of dataset.length=128",
        ),
        ({"tokenizer": "{}"}, "tokenizer.json: "),
        ({"tokenizer": "{}/short.txt"}, "it cannot be loaded"),
        ({"length": 1}, "dataset.length=1: "),
        ({"path": 3}, "dataset.path=3: must be a path"),
    ],
)
def test_one_sentence(tmp_path, options, said):
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "short.txt").write_text("0123456789" * 10)
    (tmp_path / "empty").mkdir()
    options = {name: value.replace("{}", str(tmp_path)) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(InputError, match=said):
        Text(**options).load()
