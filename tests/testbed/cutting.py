"""Bytes cut anywhere, as networks cut them."""

import random
from collections.abc import Iterator


def cut_randomly(data: bytes, source: random.Random, longest: int) -> Iterator[bytes]:
    """Pieces of 1 to `longest` bytes, which together are the data."""
    while data:
        size = source.randint(1, min(len(data), longest))
        yield data[:size]
        data = data[size:]
