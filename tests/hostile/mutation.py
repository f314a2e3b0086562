"""Random harm to small valid images, by a seed that is printed.

Each mutation takes a base image and flips bytes in what is read first: its table, its
superblocks, its header. The same seed gives the same image again.
"""

import lzma
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hostile.attack import ANY, MIB, Attack, Make
from hostile.containers import copied_by_qemu
from hostile.guest import flip_bytes, make_guest
from testbed.guests import LAYOUTS

_NO_TASKS = {"img_properties": '{"EXCLUDE_ALL_TASKS": "yes"}'}
_NO_CHECK = {"img_properties": '{"EXCLUDE_FILESYSTEMRESIZE_TASKS": "yes", "USERS": "root debian"}'}


_FLIPS = (1, 200)
"""Bytes that are changed in an image, at least and at most."""


@dataclass(frozen=True)
class Base:
    """A valid image. head: bytes from its start in which harm is done; 0: anywhere.

    size: MiB of the disk. helper: does the helper VM get to see it?
    """

    make: Make
    head: int
    format: str = "diskdump"
    size: int = 16
    helper: bool = False


_CONTENT = random.Random(0).randbytes(MIB)


def _pack(path: Path) -> None:
    path.write_bytes(lzma.compress(_CONTENT + bytes(MIB)))


BASES: Mapping[str, Base] = {
    "qcow2": Base(copied_by_qemu("qcow2", content=_CONTENT), 4096, "qcow2"),
    "vmdk": Base(copied_by_qemu("vmdk", content=_CONTENT), 4096, "vmdk"),
    "vhd": Base(copied_by_qemu("vpc", content=_CONTENT), 4096, "vhd"),
    "vhdx": Base(copied_by_qemu("vhdx", content=_CONTENT), 0, "vhdx"),
    "xz": Base(_pack, 0),
    **{
        name: Base(
            make_guest(layout=LAYOUTS[name]),
            head,
            size=LAYOUTS[name].disk.size // MIB + 8,
            helper=True,
        )
        for name, head in {
            "mbr-logical": 128 << 10,
            "gpt": 128 << 10,
            "ext2": 0,
            "needs-check": 0,
            "xfs": 0,
            "btrfs": 0,
        }.items()
    },
}


def make_attack(seed: int) -> Attack:
    """The attack of a seed: a base, and bytes of it that are others."""
    chance = random.Random(seed)
    name = chance.choice(list(BASES))
    base = BASES[name]
    flips = chance.randint(*_FLIPS)
    checked = chance.random() < 0.5

    def make(path: Path) -> None:
        base.make(path)
        flip_bytes(path, 0, base.head or path.stat().st_size, seed, flips)

    return Attack(
        f"random-{seed}",
        f"{flips} bytes of a {name} image, by seed {seed}",
        make,
        ANY,
        format=base.format,
        size=base.size,
        helper=base.helper,
        parameters=({} if checked else _NO_CHECK) if base.helper else _NO_TASKS,
    )
