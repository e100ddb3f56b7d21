"""Ways to damage a file, each a function of its bytes and of chance; none gives the bytes back as they were."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable


def one_bit(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def bit_of_the_header(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(min(len(data), 400))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def byte_more(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(1) + data[at:]


def byte_less(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + data[at + 1 :]


def overwritten(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(min(32, len(data) - at)) + data[at + 32 :]


def zeroed(data: bytes, chance: random.Random) -> bytes:
    """A run of zeros, as a disk gives for a block that it lost; somewhere where there are none."""
    while True:
        at = chance.randrange(len(data))
        changed = data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]
        if changed != data:
            return changed


def exchanged(data: bytes, chance: random.Random) -> bytes:
    """Two parts of equal length in each other's place."""
    length = min(16, len(data) // 4)
    while True:
        first = chance.randrange(len(data) - 2 * length)
        second = chance.randrange(first + length, len(data) - length + 1)
        a, b = data[first : first + length], data[second : second + length]
        if a != b:
            return data[:first] + b + data[first + length : second] + a + data[second + length :]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "one bit": one_bit,
    "a bit of the header": bit_of_the_header,
    "truncated": truncated,
    "a byte more": byte_more,
    "a byte less": byte_less,
    "overwritten": overwritten,
    "zeroed": zeroed,
    "exchanged": exchanged,
}


def damaged(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """A kind of damage, and the bytes with it, which differ from those given."""
    while True:
        name = chance.choice(list(DAMAGES))
        changed = DAMAGES[name](data, chance)
        if changed != data:
            return name, changed


def parts(data: bytes) -> tuple[dict, bytes]:
    """The header of a safetensors file and the bytes of its tensors."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def together(header: dict, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def described_by(data: bytes, other: bytes) -> bytes:
    """The tensors of one safetensors file with the metadata of another."""
    header, tensors = parts(data)
    return together({**header, "__metadata__": parts(other)[0]["__metadata__"]}, tensors)


def renamed(data: bytes, chance: random.Random) -> bytes:
    """Two tensors of equal shape under each other's names, or of none the first two."""
    header, tensors = parts(data)
    names = [name for name in header if name != "__metadata__"]
    pairs = [(a, b) for a in names for b in names if a < b and header[a]["shape"] == header[b]["shape"]]
    a, b = chance.choice(pairs) if pairs else names[:2]
    header[a], header[b] = header[b], header[a]
    return together(header, tensors)
