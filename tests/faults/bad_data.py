"""Bad data sets: parquet files and folders of images, as words of the command line."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


class Case(NamedTuple):
    """A command line and what has to come of it: "refused", "runs", or "either" without a traceback."""

    name: str
    words: Sequence[str]
    expected: str = "refused"


def png(size: tuple[int, int] = (32, 32), mode: str = "RGB", seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert("L" if mode == "I;16" else mode).convert(mode).save(file, format="PNG")
    return file.getvalue()


def claims(width: int, height: int) -> bytes:
    """A PNG whose header claims more pixels than there are."""
    data = bytearray(png())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


IMAGES, LABELS = [png(seed=i) for i in range(40)], [i % 10 for i in range(40)]
GRAYS = [png((28, 28), "L", seed=i) for i in range(40)]
SMALL = ["model.training.epochs=0", "calibration.images=16", "calibration.batch_size=8"]


def table(images: Sequence[Any], labels: Sequence[Any] | None, column: str = "img") -> bytes:
    columns: dict[str, Any] = {column: [{"bytes": each, "path": None} for each in images]}
    if labels is not None:
        columns["label"] = labels
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def name_of(text: str) -> str:
    return re.sub(r"\W+", "_", text)


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def first(image: bytes | None) -> bytes:
    """A table whose first image is another."""
    return table([image, *IMAGES[1:]], LABELS)


def labelled(label: Any) -> bytes:
    return table(IMAGES, [label, *LABELS[1:]])


def parquet_cases(work: Path) -> Iterator[Case]:
    whole = table(IMAGES, LABELS)
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0x10
    trains = {
        "no rows": table([], []),
        "of no bytes": b"",
        "of random bytes": os.urandom(5000),
        "its first half": whole[: len(whole) // 2],
        "without its last byte": whole[:-1],
        "another column": table(IMAGES, LABELS, "picture"),
        "no labels": table(IMAGES, None),
        "a label 10": labelled(10),
        "a label -1": labelled(-1),
        "a label null": labelled(None),
        "labels of words": table(IMAGES, [str(label) for label in LABELS]),
        "labels of fractions": table(IMAGES, [label + 0.5 for label in LABELS]),
        "an image of nonsense": first(b"\x89PNG nonsense"),
        "an image that ends": first(IMAGES[0][:200]),
        "an image null": first(None),
        "an image of another size": first(png((31, 32))),
        "1024 x 1 pixels": first(png((1024, 1))),
        "60000 x 60000 pixels claimed": first(claims(60000, 60000)),
        "12000 x 12000 pixels claimed": first(claims(12000, 12000)),
        "an alpha channel": first(png(mode="RGBA")),
        "five images": table(IMAGES[:5], LABELS[:5]),
    }
    either = {
        "one bit flipped": bytes(flipped),
        "a gray image": first(png(mode="L")),
        "a palette": first(png(mode="P")),
        "labels of booleans": table(IMAGES, [bool(label % 2) for label in LABELS]),
        "labels of floats": table(IMAGES, [float(label) for label in LABELS]),
    }

    def case(name: str, expected: str, files: dict[str, bytes], data: str = "cifar10") -> Case:
        folder = emptied(work / name_of(f"{data} {name}"))
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return Case(f"parquet: {name}", [f"dataset={data}", f"dataset.path={folder}", *SMALL], expected)

    train, test = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"
    yield case("intact", "runs", {train: whole, test: whole})
    for expected, tables in (("refused", trains), ("either", either)):
        for name, content in tables.items():
            yield case(name, expected, {train: content, test: whole})
    yield case("a missing shard", "refused", {"train-00001-of-00002.parquet": whole, test: whole})
    yield case("no test images", "refused", {train: whole})
    yield case("no file", "refused", {})
    for mode in ("P", "1", "I;16"):
        images = [png((28, 28), mode, seed=i) for i in range(40)]
        yield case(f"mode {mode.replace(';', ' ')}", "either", {train: table(images, LABELS), test: table(GRAYS, LABELS)}, "mnist")
    found = case("a shard that is a folder", "refused", {test: whole})
    (work / name_of("cifar10 a shard that is a folder") / train).mkdir()
    yield found
    found = case("a link to itself", "refused", {})
    folder = Path(found.words[1].partition("=")[2])
    (folder / train).symlink_to(folder / train)
    yield found
    (emptied(work / "torchvision") / "cifar-10-batches-py").mkdir()
    yield Case("parquet: torchvision's folder, empty", ["dataset=cifar10", f"dataset.path={work / 'torchvision'}"])
    yield Case("parquet: a file", ["dataset=cifar10", f"dataset.path={folder.parent / 'cifar10_intact' / train}"], "either")


def folder_cases(work: Path) -> Iterator[Case]:
    many = {f"{i}.png": png((40, 36), seed=i) for i in range(15)}

    def case(name: str, classes: dict[str, dict[str, bytes]], expected: str = "refused", words: Sequence[str] = (), part: str = "") -> Case:
        folder = emptied(work / name_of(f"folder {name}"))
        for label, files in classes.items():
            (folder / part / label).mkdir(parents=True)
            for file, content in files.items():
                (folder / part / label / file).write_bytes(content)
        return Case(f"folder: {name}", ["dataset=folder", f"dataset.path={folder}", "dataset.size=32", *SMALL, *words], expected)

    def beside(name: str, content: bytes, expected: str = "refused", words: Sequence[str] = ()) -> Case:
        return case(name, {"a": many, "b": {**many, "x.png": content}}, expected, words)

    two = {"a": many, "b": many}
    yield case("intact", two, "runs")
    yield case("other files beside", {"a": many, "b": {**many, "notes.txt": b"hello", ".DS_Store": b"x"}}, "either")
    yield case("one class", {"a": many})
    yield case("no class", {})
    yield case("no image", {"a": {}, "b": {}})
    yield case("a class without images", {"a": many, "b": {}})
    yield case("three images", {"a": {"1.png": png()}, "b": {"1.png": png(), "2.png": png()}})
    yield case("train without test", two, part="train")
    yield case("test without train", two, part="test")
    yield beside("a text", b"hello")
    yield beside("a file of no bytes", b"")
    yield beside("an image that ends", png((64, 64))[:900])
    yield beside("60000 x 60000 pixels claimed", claims(60000, 60000))
    yield beside("16 bits", png(mode="I;16"))
    yield beside("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n(CANARY) (w) file closefile\n")
    yield beside("a GIF", b"GIF89a" + bytes(40))
    yield beside("sizes that differ", png((41, 36)), words=["dataset.size=null"])
    for mode in ("L", "RGBA", "P"):
        yield beside(f"mode {mode}", png((40, 40), mode), "either")
    yield beside("1 x 20000 pixels", png((1, 20000)), "either")
    for word in ("size=0", "size=-1", "size=1.5", "mean=[0.5,0.5]", "std=[0.5,0,0.5]", "std=[.nan,1,1]", "mean=[.inf,1,1]", "mean=null"):
        yield case(word, two, words=[f"dataset.{word}"])
    for word in ("size=1", "size=1000000"):
        yield case(word, two, "either", [f"dataset.{word}"])
    for name in ("<script>", "a b", "é", "'; touch CANARY"):
        yield case(f"a class {name.encode().hex()}", {name: many, "b": many}, "either")
    for name, link in (("a loop of links", "."), ("a link out of the folder", "/")):
        found = case(name, two)
        (work / name_of(f"folder {name}") / "a" / "again").symlink_to(link)
        yield Case(found.name, found.words, "either")
    found = case("a named pipe", two)
    os.mkfifo(work / name_of("folder a named pipe") / "b" / "z.png")
    yield found
