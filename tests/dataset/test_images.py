"""Images of formats, kinds and sizes that are not understood are refused, before they are decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from helpers import refused
from PIL import Image

from lrp.dataset.images import MOST_PIXELS, decode, open_image


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def claiming(width, height):
    """A PNG of a few bytes whose header says that it is of this size."""
    data = encoded(Image.new("RGB", (32, 32)))
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    "data", [b"", b"no image", POSTSCRIPT, encoded(Image.new("L", (4, 4)), "GIF"), encoded(Image.new("L", (4, 4)), "PDF")]
)
def test_other_formats(data):
    refused(lambda: open_image(data), "is not an image in one of the formats JPEG, PNG")


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    """Whatever it is called; PIL would look for ``gs`` in the PATH."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    refused(lambda: open_image(tmp_path / "a.png"), "is not an image")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("size", [(60_000, 60_000), (1, MOST_PIXELS + 1), (2**31 - 1, 2**31 - 1)])
def test_size_is_read_from_the_header(size):
    refused(lambda: open_image(claiming(*size)), f"more than {MOST_PIXELS:,} pixels")


@pytest.mark.parametrize("image, said", [
    (Image.fromarray(np.full((4, 5), 65535, np.uint16)), "16 bit grey image of 5 x 4 pixels"),
    (Image.fromarray(np.full((4, 5), 7, np.int32)), "32 bit grey image of 5 x 4 pixels"),
    (Image.fromarray(np.full((4, 5), 0.5, np.float32)), "floating point image of 5 x 4 pixels"),
])  # fmt: skip
def test_deeper_pixels_are_refused(image, said):
    refused(lambda: decode(open_image(encoded(image, "TIFF")), "RGB"), f"is a {said}; save it with 8 bits a channel")


def test_damaged_pixels():
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)))
    refused(lambda: decode(open_image(data[: len(data) // 2]), "RGB"), "is damaged")


def test_eight_bits_and_fewer_are_what_they_are():
    white = Image.new("P", (4, 4), 0)
    white.putpalette([255, 255, 255])
    for image in (white, Image.new("1", (4, 4), 1), Image.new("L", (4, 4), 255), Image.new("RGB", (4, 4), "white")):
        assert np.asarray(decode(open_image(encoded(image)), "RGB")).tolist() == [[[255] * 3] * 4] * 4
