"""Images from files that anybody may have made: only formats and kinds of pixels that are understood, and no more than fit into memory."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from lrp.errors import InputError, first_line

# Those of torchvision's ImageFolder. PIL knows many more, and it goes by a file's first bytes, whatever its name: of a .png that
# holds PostScript it would make an image by running Ghostscript on it.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
MOST_PIXELS = 178_956_970  # of an image, here 3 bytes each; twice what PIL warns of, and where it stops by default

WORDS = {
    "1": "black and white", "L": "grey", "LA": "grey with transparency", "La": "grey with transparency", "P": "palette",
    "PA": "palette with transparency", "RGB": "colour", "RGBA": "colour with transparency", "RGBa": "colour with transparency",
    "CMYK": "CMYK", "F": "floating point", "I": "32 bit grey", "I;16": "16 bit grey", "I;16B": "16 bit grey", "I;16L": "16 bit grey",
}  # fmt: skip
DEEP = ("I", "F")  # how the modes begin whose values PIL cuts off at 255 when it converts them


def said(image: Image.Image) -> str:
    """What an image is, in words: "a palette image of 28 x 28 pixels"."""
    return f"a {WORDS.get(image.mode, image.mode)} image of {image.width} x {image.height} pixels"


def open_image(source: Path | bytes) -> Image.Image:
    """An image of which only the header is read: format, mode and size are known, and nothing is decoded.

    Raises:
        InputError: For bytes that are no image in one of ``FORMATS``, and for one of more than ``MOST_PIXELS``; the text ends a sentence.
    """
    try:
        image = Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(f"holds more than {MOST_PIXELS:,} pixels") from error
    except Exception as error:  # whatever PIL's readers of headers raise for damaged ones
        raise InputError(f"is not an image in one of the formats {', '.join(FORMATS)} ({_reason(error)})") from error
    if image.width * image.height > MOST_PIXELS:
        raise InputError(f"is {said(image)}, which are more than {MOST_PIXELS:,}")
    return image


def decode(image: Image.Image, mode: str) -> Image.Image:
    """The pixels of an opened image in a mode, "L" or "RGB", of 8 bits a channel.

    Raises:
        InputError: For an image that is damaged, or whose values do not fit into 8 bits; the text ends a sentence.
    """
    if image.mode.startswith(DEEP):
        raise InputError(f"is {said(image)}; save it with 8 bits a channel")
    try:
        return image.convert(mode)
    except Exception as error:  # whatever PIL's decoders raise for damaged images
        raise InputError(f"is damaged, or {said(image)} that cannot be made {WORDS[mode]} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """The kind of the error alone where its text would name an object in memory or a path."""
    return type(error).__name__ if isinstance(error, Image.UnidentifiedImageError) else first_line(error)
