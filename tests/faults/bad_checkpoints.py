"""Bad checkpoints, and run folders that hold nonsense, as words of the command line."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from faults.bad_data import Case, emptied, name_of
from faults.damage import parts, together
from safetensors.torch import load, save
from torch import nn

WEIGHT = "features.0.weight"


class Canary:
    """A pickle that makes a file when it is executed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch CANARY",)


def as_pt(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def bomb() -> bytes:
    """An archive that unpacks to a thousand times its size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
        archive.writestr("archive/version", "3")
        with archive.open("archive/data/0", "w") as member:
            for _ in range(256):
                member.write(bytes(2**20))
    return file.getvalue()


def _headers(data: bytes) -> dict[str, bytes]:
    """Safetensors files whose headers claim what is not there."""

    def changed(**entries: Any) -> bytes:
        header, tensors = parts(data)
        header[WEIGHT] = {**header[WEIGHT], **entries}
        return together(header, tensors)

    other = next(entry for name, entry in parts(data)[0].items() if name not in (WEIGHT, "__metadata__"))
    nested = struct.pack("<Q", 200_000) + b"[" * 100_000 + b"]" * 100_000
    return {
        "offsets that overlap": changed(data_offsets=other["data_offsets"]),
        "10^15 elements": changed(shape=[10**15]),
        "2^80 elements": changed(shape=[2**40, 2**40]),
        "negative shape": changed(shape=[-1, 3]),
        "unknown type": changed(dtype="F13"),
        "nested header": nested,
        "header of 2^62 bytes": struct.pack("<Q", 2**62) + data[8:],
        "header of 99 MB": struct.pack("<Q", 99_000_000) + data[8:],
        "no bytes": b"",
        "seven bytes": b"1234567",
        "its first half": data[: len(data) // 2],
        "200 bytes": data[:200],
        "without the last byte": data[:-1],
        "one byte more": data + b"x",
    }


def _tensors(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, str, dict[str, torch.Tensor]]]:
    """(what is wrong, what is expected, the tensors)"""
    weight = state[WEIGHT]

    def with_weight(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        return {**state, WEIGHT: tensor.contiguous()}

    nan, inf = weight.clone(), weight.clone()
    nan.view(-1)[0], inf.view(-1)[0] = torch.nan, torch.inf
    yield "intact", "runs", state
    yield "half", "runs", {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    yield "other names", "refused", {f"net.{key}x": value for key, value in state.items()}
    yield "one missing", "refused", {key: value for key, value in state.items() if key != WEIGHT}
    yield "wrong shape", "refused", with_weight(torch.ones(3, 3))
    yield "nan", "refused", with_weight(nan)
    yield "inf", "refused", with_weight(inf)
    yield "integers", "refused", {key: value.int() for key, value in state.items()}
    yield "complex", "refused", with_weight(weight.to(torch.complex64))
    yield "beyond float32", "refused", with_weight(torch.full_like(weight, 1e300, dtype=torch.float64))
    yield "nothing", "refused", {"x": torch.zeros(0)}
    yield "one more", "either", {**state, "extra": torch.ones(2)}
    yield "transposed", "either", with_weight(weight.transpose(0, 1))
    yield "zeros", "either", {key: torch.zeros_like(value) for key, value in state.items()}
    yield "huge", "either", with_weight(torch.full_like(weight, 1e30))
    yield "negative variances", "either", {key: -value if key.endswith("running_var") else value for key, value in state.items()}


def checkpoint_cases(work: Path, network: bytes) -> Iterator[Case]:
    """``network``: a file of tensors that fit."""
    work, state = emptied(work), load(network)

    def case(name: str, content: bytes, suffix: str = ".safetensors", expected: str = "refused") -> Case:
        file = work / (name_of(name) + suffix)
        file.write_bytes(content)
        return Case(f"checkpoint: {name}{suffix}", [f"model.checkpoint={file}"], expected)

    for name, content in _headers(save(state)).items():
        yield case(name, content)
    for name, expected, tensors in _tensors(state):
        yield case(name, save(tensors), expected=expected)
        yield case(name, as_pt(tensors), ".pt", expected)
    code = Canary()
    pickles = {
        "pickle with code": pickle.dumps(code),
        "torch file with code": as_pt({"state_dict": state, "x": code}),
        "a module": as_pt(nn.Linear(2, 2)),
        "old torch file with code": as_pt({"x": code}, _use_new_zipfile_serialization=False),
        "a list": as_pt([torch.ones(2)]),
        "a tensor": as_pt(torch.ones(2)),
        "no tensors": as_pt({"a": 1}),
        "numbers as names": as_pt({1: torch.ones(2)}),
        "a text": b"hello",
        "bytes": bytes(range(256)) * 8,
        "nothing pickled": pickle.dumps(None),
        "a bomb": bomb(),
        "on meta": as_pt({**state, WEIGHT: state[WEIGHT].to("meta")}),
        "10^15 by strides": as_pt({**state, WEIGHT: torch.ones(1).expand(10**15)}),
        "half a file": as_pt(state)[: len(as_pt(state)) // 2],
    }
    for name, content in pickles.items():
        yield case(name, content, ".pt")
    yield case("pickle with code", pickle.dumps(code))
    whole, sparse = as_pt(state), as_pt({**state, WEIGHT: state[WEIGHT].to_sparse()})
    yield case("sparse", sparse, ".pt", "either")
    for at in (2, 30, 80, 150, 300, 600):
        place = whole.index(b"data.pkl") + 8 + at
        yield case(f"flipped at {at}", whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :], ".pt", "either")
    os.mkfifo(work / "pipe.safetensors")
    (work / "loop.safetensors").symlink_to(work / "loop.safetensors")
    (work / "folder.safetensors").mkdir()
    (work / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for path in (*(work / f"{name}.safetensors" for name in ("pipe", "loop", "folder", "pointer", "none")), Path("/dev/zero")):
        yield Case(f"checkpoint: {path.stem}", [f"model.checkpoint={path}"])


def run_folder_cases(work: Path) -> Iterator[tuple[Case, Callable[[], object]]]:
    """Cases of a folder with a damaged file in it, and what makes that folder."""
    aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    files = {
        "results.csv": {
            "empty": b"",
            "binary": bytes(range(1, 256)),
            "zeros": bytes(300),
            "other columns": b"a,b\n1,2\n",
            "half a row": b"model,dat",
        },
        "config.yaml": {
            "code": b"!!python/object/apply:os.system ['touch CANARY']\n",
            "damaged": b"{ a: [",
            "a list": b"[1, 2]",
            "binary": b"\xff\xfe\x80",
            "zeros": bytes(100),
            "aliases": aliases.encode(),
            "other settings": b"seed: 5\n",
            "nested": b"[" * 20_000,
            "large": b"a: b\n" * 400_000,
        },
    }
    for file, contents in files.items():
        for name, content in contents.items():
            folder = work / name_of(f"run {file} {name}")

            def make(folder: Path = folder, file: str = file, content: bytes = content) -> None:
                (emptied(folder) / file).write_bytes(content)

            expected = "either" if name in ("empty", "half a row") else "refused"
            yield Case(f"run folder: {file} {name}", [f"hydra.run.dir={folder}", "resume=true"], expected), make
    blocked = work / "a_file"

    def write() -> None:
        work.mkdir(parents=True, exist_ok=True)
        blocked.write_text("x")

    for word in (f"hydra.run.dir={blocked}", f"hydra.run.dir={blocked}/x", f"cache_dir={blocked}", f"hydra.run.dir={work}/{'x' * 300}"):
        yield Case(f"run folder: {word[:40]}", [word]), write
