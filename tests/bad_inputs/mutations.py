"""Small changes of a file: bytes, lines and fields that are lost, doubled, exchanged or replaced by something odd."""

from __future__ import annotations

import random
from collections.abc import Callable

ODD_BYTES = (0, 9, 10, 11, 13, 26, 27, 32, 34, 39, 44, 59, 62, 127, 128, 160, 194, 239, 254, 255)
ODD_FIELDS = (
    b"", b" ", b"0", b"-1", b"-0", b"1.5", b"1e999", b"-inf", b"nan", b"NA", b"null", b"999999999999999999999999",
    b"0x10", b"1,5", b"1.000,5", b"+", b"-", b".", b"*", b"#", b">", b";", b"//", b"LOCUS", b"ID", b"\xff\xfe", b"\x00",
    b"\xc3", b"\xc3\xa9", b'"', b'""', b"'", b"\\", b"{", b"[", b"[[[[", b"&a", b"*a", b"<<", b"~",
    b"!!python/object:x",
    b"2020-13-45", b"0000-00-00", b"9999-12-31", b"1e5", b"true", b"train", b"chr99", b"=1+1", b"\r", b"\n", b"\t",
    b"A" * 5000, b"9" * 5000, b"\xe2\x80\xae", b"\xef\xbb\xbf",
)  # fmt: skip
_SEPARATORS = (b"\t", b",", b";", b" ", b":", b"\n")

Change = Callable[[bytes, random.Random], bytes]


def _place(data: bytes, rng: random.Random, longest: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randrange(1, longest))


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def odd_byte(data: bytes, rng: random.Random) -> bytes:
    at, _ = _place(data, rng)
    return data[:at] + bytes([rng.choice(ODD_BYTES)]) + data[at + rng.randrange(2) :]


def lose(data: bytes, rng: random.Random) -> bytes:
    start, end = _place(data, rng)
    return data[:start] + data[end:]


def double(data: bytes, rng: random.Random) -> bytes:
    start, end = _place(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 300)) + data[end:]


def cut_short(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def noise(data: bytes, rng: random.Random) -> bytes:
    start, end = _place(data, rng)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _parts(data: bytes, rng: random.Random, separators: tuple[bytes, ...]) -> tuple[bytes, list[bytes]]:
    separator = rng.choice([one for one in separators if one in data] or [b"\n"])
    return separator, data.split(separator)


def lines(data: bytes, rng: random.Random) -> bytes:
    return _moved(*_parts(data, rng, (b"\n",)), rng)


def fields(data: bytes, rng: random.Random) -> bytes:
    return _moved(*_parts(data, rng, _SEPARATORS), rng)


def _moved(separator: bytes, parts: list[bytes], rng: random.Random) -> bytes:
    at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    kind = rng.randrange(4)
    if kind == 0:
        del parts[at]
    elif kind == 1:
        parts.insert(at, parts[other])
    elif kind == 2:
        parts[at], parts[other] = parts[other], parts[at]
    else:
        parts[at : at + 2] = [b"".join(parts[at : at + 2])]
    return separator.join(parts)


def odd_field(data: bytes, rng: random.Random) -> bytes:
    separator, parts = _parts(data, rng, _SEPARATORS)
    parts[rng.randrange(len(parts))] = rng.choice(ODD_FIELDS)
    return separator.join(parts)


def line_ends(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b" \n", b"")))


CHANGES: tuple[Change, ...] = (
    flip_bit, odd_byte, lose, double, cut_short, noise, lines, fields, odd_field, odd_field, line_ends,
)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data after one to three changes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(CHANGES)(data, rng)
    return data
