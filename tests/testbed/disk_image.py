"""A disk image from a tree of files: its table, its file systems, nothing mounted.

Each file system is made by its own mkfs from a folder, in a file of its own, and then copied
to its place: no loop device, no mount, nothing that a killed run could leave.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import InputError
from testbed.partitioning import DiskLayout, Partition, make_sfdisk_script

_TIMEOUT = 300.0
Damage = Callable[[Path], None]
"""Harms a file system in a file."""


def build(layout: DiskLayout, tree: Path, image: Path, damage: Damage | None = None) -> None:
    """Make the disk image `image` of a layout, filled from a folder.

    tree: the root's files; what lies under another volume's mount point moves out of it.
    damage: done to the root file system. Raises CommandError, NodeError.
    """
    image.unlink(missing_ok=True)
    image.touch()
    os.truncate(image, layout.size)
    if layout.table != "none":
        script = make_sfdisk_script(layout).encode()
        process.run(["sfdisk", "--quiet", str(image)], stdin=script)
    with tempfile.TemporaryDirectory(prefix=f"{image.name}.", dir=image.parent) as scratch:
        folders = _split(layout, tree, Path(scratch))
        for partition in layout.partitions:
            make = _MAKERS.get(partition.volume.kind)
            if make is None:
                continue
            file = Path(scratch, "volume")
            file.touch()
            os.truncate(file, partition.size)
            folder = folders.get(partition.volume.mountpoint, Path(scratch))
            make(file, folder, partition.volume.label, layout.uuid(partition))
            if damage is not None and partition.volume.mountpoint == "/":
                damage(file)
            _place(file, image, partition)
            file.unlink()


def _split(layout: DiskLayout, tree: Path, scratch: Path) -> dict[str, Path]:
    """The folder of each mount point, taken out of the root's tree."""
    folders = {"/": tree}
    mountpoints = {each.volume.mountpoint for each in layout.partitions} - {"", "/"}
    for index, mountpoint in enumerate(sorted(mountpoints)):
        folders[mountpoint] = scratch / f"tree{index}"
        inside = tree / mountpoint.lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        inside.rename(folders[mountpoint])
        inside.mkdir()
    return folders


def _place(file: Path, image: Path, partition: Partition) -> None:
    """Copy a file system into its partition, holes left out."""
    with file.open("rb") as source, image.open("r+b", buffering=0) as target:
        for start, end in _find_data(source.fileno()):
            target.seek(partition.start + start)
            while start < end:
                start += os.sendfile(target.fileno(), source.fileno(), start, end - start)


def _find_data(descriptor: int) -> Iterator[tuple[int, int]]:
    at = 0
    while True:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(descriptor, at, os.SEEK_HOLE)
        yield at, end
        at = end


def _make_ext(kind: str) -> Callable[[Path, Path, str, str], None]:
    def make(file: Path, tree: Path, label: str, uuid: str) -> None:
        argv = ["mke2fs", "-q", "-F", "-t", kind, "-d", str(tree), "-L", label]
        options = ["-U", uuid, "-E", f"hash_seed={uuid}", str(file)]
        process.run([*argv, *options], timeout=_TIMEOUT)

    return make


def _make_btrfs(file: Path, tree: Path, label: str, uuid: str) -> None:
    argv = ["mkfs.btrfs", "--quiet", "--label", label, "--uuid", uuid]
    process.run([*argv, "--rootdir", str(tree), str(file)], timeout=_TIMEOUT)


def _make_xfs(file: Path, tree: Path, label: str, uuid: str) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="protofile-") as protofile:
        protofile.write("".join(f"{line}\n" for line in make_protofile(tree)))
        protofile.flush()
        argv = ["mkfs.xfs", "-q", "-L", label, "-m", f"uuid={uuid}", "-p", protofile.name]
        process.run([*argv, str(file)], timeout=_TIMEOUT)


def _make_vfat(file: Path, tree: Path, label: str, uuid: str) -> None:
    process.run(["mkfs.vfat", "-n", label.upper(), "-i", uuid[:8], str(file)])


def _make_swap(file: Path, tree: Path, label: str, uuid: str) -> None:
    process.run(["mkswap", "--label", label, "--uuid", uuid, str(file)])


_MAKERS: Mapping[str, Callable[[Path, Path, str, str], None]] = {
    "ext2": _make_ext("ext2"),
    "ext3": _make_ext("ext3"),
    "ext4": _make_ext("ext4"),
    "xfs": _make_xfs,
    "btrfs": _make_btrfs,
    "vfat": _make_vfat,
    "swap": _make_swap,
}
"""file, folder, label, UUID → the file holds the file system. vfat and swap stay empty."""


def make_protofile(tree: Path) -> Iterator[str]:
    """A folder as mkfs.xfs(8) takes it with `-p`.

    The format knows no sticky bit, no hard links and no extended attributes, and in
    xfsprogs before 6.2 no space in a name: InputError.
    """
    yield from ("/dev/null", "0 0", f"d--755 {_read_owner(tree.stat())}")
    yield from _make_proto_lines(tree)
    yield "$"


def _make_proto_lines(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if any(character.isspace() for character in path.name):
            raise InputError(f"{path}: mkfs.xfs takes no name with a space")
        status = path.lstat()
        mode, owner = status.st_mode, _read_owner(status)
        special = ("u" if mode & stat.S_ISUID else "-") + ("g" if mode & stat.S_ISGID else "-")
        tail = f"{special}{mode & 0o777:03o} {owner}"
        if path.is_symlink():
            yield f"{path.name} l{tail} {path.readlink()}"
        elif path.is_dir():
            yield f"{path.name} d{tail}"
            yield from _make_proto_lines(path)
            yield "$"
        elif path.is_file():
            yield f"{path.name} -{tail} {path}"


def _read_owner(status: os.stat_result) -> str:
    return f"{status.st_uid} {status.st_gid}"
