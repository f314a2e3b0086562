"""An attack: an image made to harm whoever deploys it, and how its deployment must end."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
SECTOR = 512

Make = Callable[[Path], None]
"""Writes the image at a path, in a folder that is the attack's own."""

ANY = "any"
"""For damage by seed: how it must end nobody can say, but it must end well or in a line."""


@dataclass(frozen=True)
class Attack:
    """One image, and the one line with which its deployment must end.

    what: what it attacks, for people. reason: a pattern of the line, empty when the deployment
    must succeed, or ANY. image: the id under which it is deployed, where that is not its file's
    name. size: MiB of the disk. untouched: it is refused before a byte is written.
    helper: does the helper VM get to see it? parameters: OS parameters beside the usual.
    holds: path in the guest → pattern of what it must hold after a deployment that succeeds.
    tricks: name → what, of attacks that share this image because none hides another.
    """

    name: str
    what: str
    make: Make
    reason: str
    format: str = "diskdump"
    image: str = ""
    size: int = 16
    untouched: bool = False
    helper: bool = True
    parameters: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[str, str] = field(default_factory=dict)
    tricks: Mapping[str, str] = field(default_factory=dict)


def write_at(pieces: Mapping[int, bytes], size: int = 0) -> Make:
    """Makes a sparse file of `size` bytes or more that holds these bytes at these offsets."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            for at, data in pieces.items():
                file.seek(at)
                file.write(data)
        if size > path.stat().st_size:
            os.truncate(path, size)

    return make


def write(data: bytes) -> Make:
    return write_at({0: data})


def find_duplicates(attacks: Sequence[Attack]) -> set[str]:
    """The names that more than one attack has."""
    names = [attack.name for attack in attacks]
    return {name for name in names if names.count(name) > 1}
