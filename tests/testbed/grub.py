"""GRUB put on a disk image by hand: grub-install wants block devices, an image has none.

As in GRUB's manual, "BIOS installation": boot.img goes into the first sector and loads the
first sector of the core image, diskboot.img, which loads the rest by its list of blocks. The
core lies behind an MBR or, on a GPT, in the BIOS boot partition.
"""

import struct
import tempfile
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import NodeError
from testbed.partitioning import MIB, SECTOR, DiskLayout, Partition, make_source

_FOLDER = Path("/usr/lib/grub/i386-pc")
_MODULES = ("biosdisk", "part_msdos", "part_gpt", "ext2", "xfs", "btrfs")
_COMMANDS = ("normal", "configfile", "linux", "serial", "terminal")
_TABLES = {"mbr": "msdos", "gpt": "gpt"}
_KERNEL_SECTOR = 0x5C
"""Offset in boot.img of the core's first sector, 8 bytes: GRUB_BOOT_MACHINE_KERNEL_SECTOR."""
_CODE_END = 0x1B8
"""Where an MBR's boot code ends and the disk's id and partition table begin."""
_BLOCK_LIST = SECTOR - 12
"""Offset in diskboot.img of its first block: sector (8 bytes), length (2), segment (2)."""


def make_core_argv(table: str, number: int, core: Path) -> list[str]:
    """grub-mkimage's argv for a core that finds its settings in partition `number`."""
    prefix = f"(hd0,{_TABLES[table]}{number})/boot/grub"
    target = ["--format=i386-pc", f"--directory={_FOLDER}", f"--prefix={prefix}"]
    return ["grub-mkimage", *target, f"--output={core}", *_MODULES, *_COMMANDS]


def patch_boot(boot: bytes, sector: int) -> bytes:
    """boot.img's code for a core at `sector`, without the bytes that are the disk's own."""
    code = bytearray(boot[:_CODE_END])
    struct.pack_into("<Q", code, _KERNEL_SECTOR, sector)
    return bytes(code)


def patch_core(core: bytes, sector: int) -> bytes:
    """A core image for its place: the list of blocks starts behind its first sector."""
    patched = bytearray(core)
    struct.pack_into("<Q", patched, _BLOCK_LIST, sector + 1)
    return bytes(patched)


def find_room(layout: DiskLayout) -> tuple[int, int]:
    """Start and size, in bytes, of the place for the core."""
    if layout.table == "mbr":
        return SECTOR, MIB - SECTOR
    return next((p.start, p.size) for p in layout.partitions if p.volume.kind == "bios")


def install(image: Path, layout: DiskLayout, root: Partition) -> None:
    """Make a disk image bootable by BIOS. Raises CommandError, NodeError."""
    start, room = find_room(layout)
    with tempfile.NamedTemporaryFile(prefix="core-") as file:
        process.run(make_core_argv(layout.table, root.number, Path(file.name)))
        core = Path(file.name).read_bytes()
    if len(core) > room:
        raise NodeError(f"GRUB's core has {len(core)} bytes, {image} has room for {room}")
    sector = start // SECTOR
    with image.open("r+b") as disk:
        disk.write(patch_boot((_FOLDER / "boot.img").read_bytes(), sector))
        disk.seek(start)
        disk.write(patch_core(core, sector))


def make_settings(layout: DiskLayout, root: Partition, style: str) -> str:
    """grub.cfg: no waiting, both consoles. The kernel's links at / are Debian's own."""
    source = make_source(layout, root, style)
    return f"""\
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=0
menuentry "Debian" {{
    linux /vmlinuz root={source} ro console=tty0 console=ttyS0,115200 quiet
    initrd /initrd.img
}}
"""
