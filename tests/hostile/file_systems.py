"""File systems that are damaged, full, dirty, read-only or lie about themselves.

Offsets are those of the kernel's documentation of ext4, xfs and btrfs. Damage by seed has no
expected end but that of every attack: well, or in one line.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hostile.attack import ANY, MIB, Attack
from hostile.guest import Harm, append, change_mounted, flip, make_guest, run_debugfs
from snf_ganeti import process
from testbed.guests import ROOT_SIZES, Layout
from testbed.partitioning import Partition

_GROWN = 8
_MOUNT = "MountImage: no root file system found: "
_CORRUPT = "FilesystemResizeUnmounted: ext[24] on /dev/sda1 is corrupt"
_NO_CHECK = {"img_properties": '{"EXCLUDE_FILESYSTEMRESIZE_TASKS": "yes", "USERS": "root debian"}'}
_LAYOUTS = {kind: Layout(filesystem=kind) for kind in ("ext4", "xfs", "btrfs")}
_SUPERBLOCK = {"ext4": 1024, "xfs": 0, "btrfs": 64 << 10}


def _size(kind: str) -> int:
    return ROOT_SIZES[kind] + _GROWN


def _poke(at: int, data: bytes) -> Harm:
    """Overwrites bytes of the file system, checksums left as they are."""

    def harm(image: Path, partition: Partition) -> None:
        with image.open("r+b") as file:
            os.pwrite(file.fileno(), data, partition.start + at)

    return harm


def _set(*requests: str) -> Harm:
    """Has debugfs set fields of an ext superblock, which keeps its checksum right."""

    def harm(image: Path, partition: Partition) -> None:
        run_debugfs(image, partition, [f"set_super_value {request}" for request in requests])

    return harm


_ALL_BLOCKS = """
    cat /dev/zero >"$2/srv/filler"
    for round in 1 2 3; do
        while printf x >"$2/srv/tiny$((++i))"; do :; done
        sync -f "$2"
    done"""
"""A file may need more blocks while it is in memory than it takes of the disk."""
_CROWD = 'for i in $(seq 10001); do : >"$2/etc/ssh/file$i"; done'
_ALL_INODES = 'i=0; while : >"$2/srv/file$i"; do i=$((i + 1)); done'


def _make_damaged(kind: str, seed: int, count: int, *, checked: bool = True) -> Attack:
    unchecked = "" if checked else "-unchecked"
    return Attack(
        f"{kind}-seed-{seed}{unchecked}",
        f"{count} bytes of {kind} damaged, by seed {seed}",
        make_guest(layout=_LAYOUTS[kind], harm=flip(seed, count)),
        ANY,
        size=_size(kind),
        parameters={} if checked else _NO_CHECK,
    )


def _make_ext(name: str, what: str, harm: Harm, reason: str, *, checked: bool = True) -> Attack:
    make = make_guest(harm=harm)
    parameters = {} if checked else _NO_CHECK
    return Attack(f"ext4-{name}", what, make, reason, size=_size("ext4"), parameters=parameters)


def _make(kind: str, name: str, what: str, harm: Harm, reason: str, grown: int = _GROWN) -> Attack:
    make = make_guest(layout=_LAYOUTS[kind], harm=harm)
    return Attack(f"{kind}-{name}", what, make, reason, size=ROOT_SIZES[kind] + 1 + grown)


def _make_second(kind: str, seed: int) -> Attack:
    """A sound root that mounts a damaged file system of another kind."""
    label = f"LABEL={_LABEL}"

    def harm(image: Path, root: Partition) -> None:
        with tempfile.NamedTemporaryFile(dir=image.parent) as file:
            os.truncate(file.name, _SECOND_SIZE)
            process.run([*_SECOND_MAKERS[kind], file.name])
            second = Path(file.name)
            flip(seed, 40)(second, Partition(root.volume, 2, 0))
            _append_partition(image, second)

    return Attack(
        f"{kind}-seed-{seed}",
        f"40 bytes of {kind} that the root's fstab mounts damaged, by seed {seed}",
        make_guest(append("etc/fstab", f"{label} /srv {kind} defaults 0 0\n"), harm=harm),
        ANY,
        size=64,
    )


_LABEL = "SECOND"
_SECOND_SIZE = 8 * MIB
_SECOND_MAKERS = {
    "vfat": ["mkfs.vfat", "-n", _LABEL],
    "ntfs": ["mkntfs", "--quiet", "--fast", "--force", "--label", _LABEL],
}


def _append_partition(image: Path, content: Path) -> None:
    """A new last partition that holds this file."""
    start = image.stat().st_size
    with image.open("ab") as file:
        file.write(content.read_bytes())
    script = f"start={start // 512}, size={_SECOND_SIZE // 512}, type=c\n"
    argv = ["sfdisk", "--quiet", "--append", str(image)]
    process.run(argv, stdin=script.encode())


_EXT4 = (
    _make_ext("block-size", "blocks of 2 TiB", _poke(1024 + 0x18, b"\x1f\0\0\0"), _CORRUPT),
    _make_ext(
        "blocks",
        "more blocks than the partition has",
        _set("blocks_count 4294967295"),
        "superblock is corrupt",
    ),
    _make_ext(
        "inode-size",
        "inodes of 65535 bytes",
        _poke(1024 + 0x58, b"\xff\xff"),
        "checksum does not match",
    ),
    _make_ext(
        "inodes-per-group",
        "no inodes in a group",
        _set("inodes_per_group 0"),
        "superblock is corrupt",
    ),
    _make_ext(
        "blocks-per-group",
        "no blocks in a group",
        _set("blocks_per_group 0"),
        "superblock is corrupt",
    ),
    _make_ext(
        "features", "features that nobody knows", _set("feature_incompat 0xffffffff"), _MOUNT
    ),
    _make_ext(
        "read-only",
        "a feature that allows reading only",
        _set("feature_ro_compat 0x80000000"),
        "unsupported feature",
    ),
    _make_ext(
        "first-inode",
        "the first inode is far away",
        _set("first_ino 4294967295"),
        "Corruption found in superblock",
    ),
    _make_ext("journal", "the journal is the root folder", _set("journal_inum 2"), ""),
    _make_ext(
        "dirty",
        "a journal that wants to be replayed and is blank",
        _set("feature_incompat 0x2c6"),
        "",
    ),
    _make_ext(
        "orphans", "a list of orphans that begins at the root folder", _set("last_orphan 2"), ""
    ),
    _make_ext(
        "orphans-unchecked",
        "the same, met by the kernel",
        _set("last_orphan 2"),
        "",
        checked=False,
    ),
    _make_ext("mount-count", "the largest mount count", _set("mnt_count 65535"), ""),
    _make_ext("errors-panic", "on an error the kernel shall panic", _set("errors 3"), ""),
)
_DEBUGFS = (
    (
        "immutable",
        "/etc/shadow is immutable",
        ("set_inode_field /etc/shadow flags 0x80010",),
        "/etc/shadow: Operation not permitted",
    ),
    (
        "folder-circle",
        "a folder that is its own child",
        ("link /etc /etc/etc",),
        _CORRUPT,
    ),
    (
        "links-0",
        "a file whose link count is 0",
        ("set_inode_field /etc/passwd links_count 0",),
        "ChangePassword: /etc/passwd: No such file",
    ),
    (
        "size-huge",
        "a file of 2^62 bytes in one block",
        ("set_inode_field /etc/passwd size 0x4000000000000000",),
        "",
    ),
    (
        "block-outside",
        "a file whose blocks are behind the disk's end",
        ("set_inode_field /etc/passwd flags 0", "set_inode_field /etc/passwd block[0] 4294967290"),
        _CORRUPT,
    ),
    (
        "type-unknown",
        "an inode of no type",
        ("set_inode_field /etc/passwd mode 0070777",),
        _CORRUPT,
    ),
)


def _make_by_debugfs(name: str, what: str, requests: Sequence[str], reason: str) -> Attack:
    return Attack(f"ext4-{name}", what, make_guest(debugfs=requests), reason, size=_size("ext4"))


_OTHERS = (
    _make("xfs", "blocks", "more blocks than the partition has", _poke(8, b"\xff" * 8), _MOUNT),
    _make("xfs", "block-size", "blocks of 2 GiB", _poke(4, b"\x80\0\0\0"), _MOUNT),
    _make("xfs", "version", "a version that nobody knows", _poke(100, b"\0\x0f"), _MOUNT),
    _make("xfs", "log", "a log of garbage that wants to be replayed", flip(7, 4000), _MOUNT),
    _make(
        "btrfs",
        "checksum",
        "a superblock of another checksum",
        _poke(64 << 10, b"\xff" * 4),
        _MOUNT,
    ),
    _make(
        "btrfs", "devices", "it misses 2^64 devices", _poke((64 << 10) + 0x88, b"\xff" * 8), _MOUNT
    ),
    _make(
        "btrfs",
        "root",
        "its tree of roots is nowhere",
        _poke((64 << 10) + 0x50, b"\xff" * 8),
        _MOUNT,
    ),
)
_NO_SPACE = "No space left on device"
_RESIZABLE_BTRFS = 300
"""MiB. The kernel takes no size below 256 MiB, not even the one that there is."""
_FULL = (
    _make("ext4", "full", "not a block is free", change_mounted(_ALL_BLOCKS), _NO_SPACE, grown=0),
    _make(
        "ext4", "no-inodes", "not an inode is free", change_mounted(_ALL_INODES), _NO_SPACE, grown=0
    ),
    _make("xfs", "full", "not a block is free", change_mounted(_ALL_BLOCKS), _NO_SPACE, grown=0),
    Attack(
        "btrfs-full",
        "not a block is free",
        make_guest(
            layout=Layout(filesystem="btrfs", size=_RESIZABLE_BTRFS),
            harm=change_mounted(_ALL_BLOCKS),
        ),
        _NO_SPACE,
        size=_RESIZABLE_BTRFS + 1,
    ),
)

_CROWDED = Attack(
    "ext4-crowd",
    "a folder of 10001 files",
    make_guest(layout=Layout(size=64), harm=change_mounted(_CROWD)),
    "more than 10000 entries",
    size=80,
)

ATTACKS = (
    _CROWDED,
    *_EXT4,
    *(_make_by_debugfs(*row) for row in _DEBUGFS),
    *_OTHERS,
    *_FULL,
    *(_make_damaged("ext4", seed, 60) for seed in (1, 2)),
    *(_make_damaged("ext4", seed, 30, checked=False) for seed in (3, 4, 5)),
    *(_make_damaged("xfs", seed, 60) for seed in (1, 2, 3)),
    *(_make_damaged("btrfs", seed, 60) for seed in (1, 2, 3)),
    *(_make_second("vfat", seed) for seed in (1, 2)),
    *(_make_second("ntfs", seed) for seed in (1, 2)),
)
