"""A file that does not fit is refused in one sentence."""

import errno
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from cases import Encoder, Grouped
from deployed import deployed, described, file_refused, rewrite
from helpers import refused
from safetensors.torch import save_file
from torch import nn

import lrp
from lrp.model.vgg16 import VGG16


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """(the bytes of a file, inputs, outputs)"""
    torch.manual_seed(0)
    _, compressed, x = deployed("grouped")
    path = tmp_path_factory.mktemp("saved") / "a.safetensors"
    lrp.save(compressed, path)
    return path.read_bytes(), x, compressed(x).detach()


@pytest.fixture
def saved(grouped, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(grouped[0])
    return path


def test_missing_file(tmp_path):
    file_refused(tmp_path / "none.safetensors", Grouped, "no such file")
    file_refused(tmp_path, Grouped, "the folder holds no lrp.safetensors")
    os.mkfifo(tmp_path / "pipe")
    file_refused(tmp_path / "pipe", Grouped, "it is a named pipe, not a file")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    file_refused(tmp_path / "pointer", Grouped, "run git lfs pull")


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    file_refused(saved, Grouped, "damaged or not a safetensors file")


def test_every_length_is_refused(saved):
    """Down to the last byte: nothing but InputError, and never a network."""
    data = saved.read_bytes()
    for length in [*range(0, len(data), 97), 7, 8, 9, len(data) - 1]:
        saved.write_bytes(data[:length])
        file_refused(saved, Grouped, "damaged or not a safetensors file")


def test_garbage(saved):
    for data in (b"nothing of the kind", os.urandom(4000), b"\0" * 4000, b"PK\3\4" + b"a" * 100, saved.read_bytes() + b"more"):
        saved.write_bytes(data)
        file_refused(saved, Grouped, "damaged or not a safetensors file")


def test_a_file_of_torch_save(tmp_path):
    torch.save(Grouped().state_dict(), tmp_path / "a.pt")
    file_refused(tmp_path / "a.pt", Grouped, "damaged or not a safetensors file")


def test_a_file_that_is_not_from_lrp(tmp_path):
    save_file(Grouped().state_dict(), tmp_path / "a.safetensors")
    file_refused(tmp_path / "a.safetensors", Grouped, "not written by lrp.save")
    save_file(Grouped().state_dict(), tmp_path / "a.safetensors", {"format": "pt"})
    file_refused(tmp_path / "a.safetensors", Grouped, "not written by lrp.save")


def test_a_newer_format(saved):
    rewrite(saved, lambda description, _: description.update(format=99, version="7.0", layers="of another kind"))
    file_refused(saved, Grouped, "lrp 7.0 in format 99.*up to format 5")


@pytest.mark.parametrize("other, match", [
    ({"kernel": 5}, r"first has kernel_size=\[3\] instead of \[5\]"),
    ({"stride": 2}, r"first has stride=\[1\] instead of \[2\]"),
    ({"groups": 1}, "first has groups=2 instead of 1"),
    ({"bias": False}, "first has bias=True instead of False"),
    ({"mode": "circular"}, "first has padding_mode=zeros instead of circular"),
])  # fmt: skip
def test_other_options(saved, other, match):
    assert {"first", "second"} == set(described(saved)[0]["layers"])
    file_refused(saved, lambda: Grouped(**other), f"another architecture.*{match}")


@pytest.mark.slow
def test_another_width(tmp_path):
    """With low-rank layers, with dense ones, and with both apart from what is compressed."""
    _, compressed, _ = deployed("encoder")
    lrp.save(compressed, tmp_path / "a.safetensors")
    file_refused(tmp_path / "a.safetensors", lambda: Encoder(24), "another architecture")
    lrp.save(Encoder(), tmp_path / "b.safetensors")
    file_refused(tmp_path / "b.safetensors", lambda: Encoder(24), "another architecture: the file holds .*16.*24")


def test_missing_and_extra_layers(saved):
    def with_extra():
        model = Grouped()
        model.third = nn.Linear(3, 3)
        return model

    def without():
        model = Grouped()
        del model.second
        return model

    def replaced():
        model = Grouped()
        model.second = nn.Linear(8, 6)
        return model

    file_refused(saved, with_extra, r"this one has third.weight, third.bias, which the file lacks")
    file_refused(saved, without, r"it has a Conv1d second, this one lacks it")
    file_refused(saved, replaced, r"it has a Conv1d second, this one a Linear")
    file_refused(saved, nn.Identity, "another architecture")
    dense = Grouped()
    lrp.save(dense, saved)
    file_refused(saved, with_extra, "this one has third.weight")
    file_refused(saved, without, "it has second.(bias, second.weight|weight, second.bias), which this one lacks")


@pytest.mark.slow
def test_another_batch_norm(tmp_path):
    _, compressed, _ = deployed("vgg")
    lrp.save(lrp.fuse(compressed), tmp_path / "a.safetensors")

    def without():
        model = VGG16(width=1 / 32)
        model.features[1] = nn.Identity()
        return model

    file_refused(tmp_path / "a.safetensors", without, "it has a batch norm features.1, this one a Identity")


@pytest.mark.slow
def test_a_network_that_is_compressed_already(saved):
    """``model`` is meant to be the dense architecture."""
    file_refused(saved, deployed("grouped")[1], "another architecture")


DAMAGE = {
    "layers": lambda d, t: d.update(layers=[1]),
    "no layers": lambda d, t: d.pop("layers"),
    "layer": lambda d, t: d["layers"].update(first=3),
    "no type": lambda d, t: d["layers"]["first"].pop("type"),
    "an unknown form": lambda d, t: d["layers"]["first"].update(form="cp"),
    "another form": lambda d, t: d["layers"]["first"].update(form="spatial"),
    "no blocks": lambda d, t: d["layers"]["first"].pop("blocks"),
    "no options": lambda d, t: d["layers"]["first"].pop("options"),
    "short block": lambda d, t: d["layers"]["first"]["blocks"].__setitem__(0, [0, 4]),
    "empty block": lambda d, t: d["layers"]["first"]["blocks"].__setitem__(0, []),
    "words in a block": lambda d, t: d["layers"]["first"]["blocks"].__setitem__(0, ["a", "b", "c", "d", "e"]),
    "a block beyond the layer": lambda d, t: d["layers"]["first"]["blocks"][0].__setitem__(1, 400),
    "another rank": lambda d, t: d["layers"]["first"]["blocks"][0].__setitem__(4, 30),
    "a huge rank": lambda d, t: d["layers"]["first"]["blocks"][0].__setitem__(4, 10**15),
    "a fractional rank": lambda d, t: d["layers"]["first"]["blocks"][0].__setitem__(4, 1.5),
    "folded": lambda d, t: d.update(folded=3),
    "no folded": lambda d, t: d.pop("folded"),
    "folded nothing": lambda d, t: d.update(folded={"nothing": "first"}),
    "folded list": lambda d, t: d.update(folded={"second": ["first"]}),
    "same": lambda d, t: d.update(same=3),
    "no same": lambda d, t: d.pop("same"),
    "same list": lambda d, t: d.update(same={"first.bias": ["a"]}),
    "report": lambda d, t: d.update(report=3),
    "no report": lambda d, t: d.pop("report"),
    "report without rows": lambda d, t: d.update(report={"totals": {}}),
    "format word": lambda d, t: d.update(format="one"),
    "no format": lambda d, t: d.pop("format"),
    "another entry": lambda d, t: d.update(sha25v=""),
    "control characters": lambda d, t: d.update(version="\x1b[31m"),
    "a layer of two lines": lambda d, t: d["layers"].update({"a\nb": d["layers"]["first"]}),
    "nested deeply": lambda d, t: d.update(report=nested(150)),
}


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_description(saved, case):
    rewrite(saved, DAMAGE[case])
    file_refused(saved, Grouped, "damaged|another architecture")


def test_one_flipped_bit(saved, grouped):
    """Of the tensors, of their names and types, and of the description: refused, or nothing else than was saved."""
    good = grouped[0]
    header = struct.unpack("<Q", good[:8])[0]
    places = [*range(8, 8 + header, 61), good.index(b"sha256") + 3, good.index(b"format") + 11, *range(8 + header, len(good), 61)]
    wanted = lrp.load(saved, Grouped).state_dict()
    refused = 0
    for place in [*places, len(good) - 1]:
        data = bytearray(good)
        data[place] ^= 0x40 if place >= 8 + header else 0x02
        saved.write_bytes(data)
        try:
            found = lrp.load(saved, Grouped).state_dict()
        except lrp.InputError as error:
            assert "\n" not in str(error) and str(saved) in str(error)
            refused += 1
        else:
            assert place < 8 + header and all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert refused >= 0.99 * len(places)


@pytest.mark.parametrize("change", [
    {"shape": [10**15]}, {"shape": [2**40, 2**40]}, {"shape": [-1, 3]}, {"dtype": "F13"}, {"data_offsets": [0, 2**50]},
])  # fmt: skip
def test_a_header_that_claims_more_than_there_is(saved, grouped, change):
    good = grouped[0]
    length = struct.unpack("<Q", good[:8])[0]
    header = json.loads(good[8 : 8 + length])
    next(value for name, value in header.items() if name != "__metadata__").update(change)
    text = json.dumps(header).encode()
    saved.write_bytes(struct.pack("<Q", len(text)) + text + good[8 + length :])
    file_refused(saved, Grouped, "damaged or not a safetensors file")


@pytest.mark.parametrize(
    "text", ["", "no json", "3", "[]", "null", '"word"', "{}", "[" * 50_000 + "]" * 50_000, '{"format": ' + "9" * 6000 + "}"]
)
def test_a_description_that_is_none(saved, text):
    _, tensors = described(saved)
    save_file(tensors, saved, {"lrp": text})
    file_refused(saved, Grouped, "damaged|not written by lrp.save")


def test_a_dropped_block_of_the_description(tmp_path):
    """It has to be noticed: the rows of a block that nobody stores would be missing from the output."""
    saved = tmp_path / "b.safetensors"
    lrp.save(deployed("grouped", forms="matrix")[1], saved)

    def drop(description, tensors):
        description["layers"]["second"]["blocks"].clear()
        for name in [name for name in tensors if name.startswith(("second.U", "second.V"))]:
            del tensors[name]

    rewrite(saved, drop)
    file_refused(saved, Grouped, "damaged|another architecture")


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch, grouped):
    write_bytes = Path.write_bytes

    def fail(file, data):
        write_bytes(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "Error writing bytes to file", str(file))

    monkeypatch.setattr(Path, "write_bytes", fail)
    for file in (saved, saved.parent / "b.safetensors"):
        with pytest.raises(OSError, match="No space left on device") as error:
            lrp.save(Grouped(), file)
        assert error.value.filename == str(file)
    monkeypatch.undo()
    assert os.listdir(saved.parent) == [saved.name] and saved.read_bytes() == grouped[0]


def test_a_state_that_is_no_tensor(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    with pytest.raises(lrp.InputError, match="_extra_state"):
        lrp.save(nn.Sequential(Extra(3, 3)), tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == []


def test_what_is_no_network(tmp_path):
    for value in (None, Grouped().state_dict(), Grouped):
        refused(lambda value=value: lrp.save(value, tmp_path / "a.safetensors"), "save=", "give a torch.nn.Module")
