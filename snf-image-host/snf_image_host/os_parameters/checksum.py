"""The checksum that an image is checked against."""

import re
from dataclasses import dataclass

_DIGITS = {"sha256": 64, "sha512": 128}


@dataclass(frozen=True)
class Checksum:
    """Of the image's bytes as fetched. algorithm: a name of hashlib; digest: hex, lower case."""

    algorithm: str
    digest: str


def parse_checksum(text: str) -> Checksum:
    """The parameter `img_checksum`, ALGORITHM:DIGEST. Raises ValueError."""
    algorithm, _, digest = text.strip().lower().partition(":")
    digits = _DIGITS.get(algorithm)
    if not digits or not re.fullmatch(rf"[0-9a-f]{{{digits}}}", digest):
        raise ValueError("it is not an algorithm and its digest")
    return Checksum(algorithm, digest)
