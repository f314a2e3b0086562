"""What attacks by containers share; each format has its module: qcow2, vmdk, vhd, vhdx."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hostile.attack import MIB, Attack, Make
from snf_ganeti import process

_NONE = {"img_properties": '{"EXCLUDE_ALL_TASKS": "yes"}'}

Row = tuple[str, str, Make, str]
"""Name, what it attacks, what makes it, and the reason with which it is refused."""


def copied_by_qemu(kind: str, *options: str, content: bytes = b"") -> Make:
    """What qemu-img makes of 4 MiB that begin so; a sound container."""

    def make(path: Path) -> None:
        with tempfile.NamedTemporaryFile() as raw:
            raw.write(content)
            raw.truncate(4 * MIB)
            argv = ["qemu-img", "convert", "-q", "-f", "raw", "-O", kind]
            process.run([*argv, *(f"-o{option}" for option in options), raw.name, str(path)])

    return make


def patched(make: Make, patches: Mapping[int, bytes], cut: int = 0) -> Make:
    """The same with these bytes overwritten; a negative offset counts from the end."""

    def patch(path: Path) -> None:
        make(path)
        data = bytearray(path.read_bytes())
        for at, piece in patches.items():
            at = at if at >= 0 else len(data) + at
            data[at : at + len(piece)] = piece
        path.write_bytes(data[: len(data) - cut] if cut else data)

    return patch


def make_attacks(kind: str, rows: Sequence[Row], late: Collection[str] = ()) -> tuple[Attack, ...]:
    """late: names of those that show what they are only when all is read."""
    return tuple(
        Attack(
            f"{kind}-{name}",
            what,
            make,
            reason,
            format=kind,
            untouched=bool(reason) and name not in late,
            helper=False,
            parameters=_NONE,
        )
        for name, what, make, reason in rows
    )
