"""Small damages to bytes and to JSON text, from a seeded generator.

It is written without a look at the readers under test.
"""

from __future__ import annotations

import random
import re
import struct

NUMBERS = [0, 1, 2, 8, 13, 31, 32, 64, 255, 2**16, 2**24, 2**31, 2**32 - 1, 2**40, 2**61, 2**63, 2**64 - 1]
# Values that JSON can hold and that readers may not expect where they stand.
VALUES = [
    b"null", b"true", b"false", b"0", b"-1", b"1", b"3", b"1e999", b"-1e999", b"NaN", b"Infinity", b"1.5", b"-0.0",
    b"2147483648", b"18446744073709551616", b"9" * 400, b"9" * 5000, b'""', b'"a"', b'"ab"', b'"gelu"', b'"0"',
    b'"' + b"x" * 5000 + b'"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\u202e\\n"', b'"<|endoftext|>"',
    b'"\xff"', b"[]", b"{}", b"[[]]", b"[" * 70 + b"]" * 70, b"[" * 2000, b'["a", "b"]', b'{"a": 1, "a": 2}',
    b'{"content": "a"}', b'{"type": "ByteLevel"}', b'[{"name": "X", "template": "y"}]', b'"../../x.safetensors"',
]  # fmt: skip
_VALUE = re.compile(rb'(?<=: )(?:"(?:[^"\\]|\\.)*"|[-\w.+]+|\{\}|\[[^\[\]{}]*\])')


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to three damages: a bit, a byte, a number of interesting size, a piece cut out, repeated or moved."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(made))
        n = rng.choice((1, 1, 2, 4, 8, 30))
        kind = rng.randrange(7)
        if kind == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            made[at] = rng.randrange(256)
        elif kind == 2:
            raw = struct.pack("<Q", rng.choice(NUMBERS))[: rng.choice((1, 4, 8))]
            made[at : at + len(raw)] = raw
        elif kind == 3 and n < len(made):
            del made[at : at + n]
        elif kind == 4:
            made[at:at] = made[at : at + n]
        elif kind == 5:
            source = rng.randrange(len(made))
            made[at : at + n] = made[source : source + n]
        elif rng.randrange(20) == 0:
            del made[at + 1 :]
    return bytes(made)


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """JSON as `json.dumps` writes it with one or two values replaced; now and then broken as bytes too."""
    for _ in range(rng.choice((1, 1, 2))):
        found = list(_VALUE.finditer(data))
        if found:
            start, end = rng.choice(found).span()
            data = data[:start] + rng.choice(VALUES) + data[end:]
    return damaged(data, rng) if rng.randrange(4) == 0 else data
