"""Ways to harm a file system in a file, as bad images and power cuts do."""

from collections.abc import Mapping
from pathlib import Path

from snf_ganeti import process
from testbed.disk_image import Damage

_EXT = ("ext2", "ext3", "ext4")
_GARBAGE = b"\xa5"


def _overwrite(at: int, size: int) -> Damage:
    def damage(file: Path) -> None:
        with file.open("r+b") as target:
            target.seek(at)
            target.write(_GARBAGE * size)

    return damage


def _set_error(file: Path) -> None:
    """What the kernel writes into an ext superblock when it meets an error: EXT2_ERROR_FS."""
    process.run(["debugfs", "-w", "-R", "set_super_value state 2", str(file)])


def _overwrite_inode_table(file: Path) -> None:
    """The first group's inode table, of which no copy exists: the root folder is in it.

    s_first_data_block is at 0x14, s_log_block_size at 0x18, bg_inode_table_lo at 8.
    """
    data = file.read_bytes()
    block = 1024 << int.from_bytes(data[1024 + 0x18 : 1024 + 0x1C], "little")
    first = int.from_bytes(data[1024 + 0x14 : 1024 + 0x18], "little")
    at = (first + 1) * block + 8  # the descriptors follow the superblock's block
    table = int.from_bytes(data[at : at + 4], "little")
    _overwrite(table * block, 256 << 10)(file)


DAMAGES: Mapping[str, Mapping[str, Damage]] = {
    # The file system is no longer known for what it is.
    "magic": {
        **dict.fromkeys(_EXT, _overwrite(1024 + 0x38, 2)),
        "xfs": _overwrite(0, 4),
        "btrfs": _overwrite((64 << 10) + 0x40, 8),
    },
    # It is known, but the superblock is not what was written.
    "checksum": {
        "ext4": _overwrite(1024 + 0x3FC, 4),
        "xfs": _overwrite(224, 4),
        "btrfs": _overwrite(64 << 10, 4),
    },
    # It is marked as having errors and wants its check, which finds none.
    "needs-check": dict.fromkeys(_EXT, _set_error),
    # It has errors that no unattended check repairs.
    "inode-table": dict.fromkeys(_EXT, _overwrite_inode_table),
}
"""Name → file system → harm. Offsets: the kernel's documentation of ext4, xfs and btrfs."""
