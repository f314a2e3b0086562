"""The small guest that attacks on files and file systems start from, and ways to change it.

An edit changes the guest's files before they go into a file system; what no file of this
machine can be is done in the file system itself, by debugfs(8).
"""

import os
import random
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from hostile.attack import Make
from snf_ganeti import process
from testbed import disk_image
from testbed.guests import Layout, write_tree
from testbed.partitioning import DiskLayout, Partition

Edit = Callable[[Path], None]
"""Changes the files of a guest, given where its root is."""
Harm = Callable[[Path, Partition], None]
"""Changes a partition of an image."""


PLAIN = Layout()


def make_guest(
    *edits: Edit,
    layout: Layout = PLAIN,
    debugfs: Sequence[str] = (),
    harm: Harm | None = None,
) -> Make:
    """Makes the image of a guest with these changes. debugfs: its requests, on the root."""

    def make(path: Path) -> None:
        disk = layout.disk
        with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
            tree = Path(scratch, "root")
            write_tree(layout, disk, tree)
            for edit in edits:
                edit(tree)
            disk_image.build(disk, tree, path)
        root = find_root(disk)
        if debugfs:
            run_debugfs(path, root, debugfs)
        if harm is not None:
            harm(path, root)

    return make


def find_root(disk: DiskLayout) -> Partition:
    return next(each for each in disk.partitions if each.volume.mountpoint == "/")


def run_debugfs(image: Path, partition: Partition, requests: Sequence[str]) -> None:
    script = "".join(f"{request}\n" for request in requests)
    argv = ["debugfs", "-w", "-f", "/dev/stdin", f"{image}?offset={partition.start}"]
    process.run(argv, stdin=script.encode())


def all_of(*edits: Edit) -> Edit:
    def edit(root: Path) -> None:
        for each in edits:
            each(root)

    return edit


def text(name: str, content: str | bytes) -> Edit:
    """A file holds this, whatever was there."""
    data = content.encode() if isinstance(content, str) else content

    def edit(root: Path) -> None:
        _clear(root / name).write_bytes(data)

    return edit


def append(name: str, content: str | bytes) -> Edit:
    data = content.encode() if isinstance(content, str) else content

    def edit(root: Path) -> None:
        with (root / name).open("ab") as file:
            file.write(data)

    return edit


def link(name: str, target: str) -> Edit:
    return lambda root: _clear(root / name).symlink_to(target)


def hard_link(name: str, target: str) -> Edit:
    return lambda root: _clear(root / name).hardlink_to(root / target)


def fifo(name: str) -> Edit:
    return lambda root: os.mkfifo(_clear(root / name))


def socket(name: str) -> Edit:
    return lambda root: os.mknod(_clear(root / name), stat.S_IFSOCK | 0o600)


def device(name: str, kind: int, major: int, minor: int) -> Edit:
    """kind: stat.S_IFCHR or stat.S_IFBLK."""
    return lambda root: os.mknod(_clear(root / name), kind | 0o666, os.makedev(major, minor))


def folder(name: str) -> Edit:
    return lambda root: _clear(root / name).mkdir(parents=True)


def missing(name: str) -> Edit:
    def edit(root: Path) -> None:
        _clear(root / name)

    return edit


def sparse(name: str, size: int) -> Edit:
    def edit(root: Path) -> None:
        _clear(root / name).touch()
        os.truncate(root / name, size)

    return edit


def _clear(path: Path) -> Path:
    """The path with nothing at it, in a folder that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


def change_mounted(script: str) -> Harm:
    """Has the kernel's own driver mount it, for what no tool does in a file.

    script: of bash, with the mount point as its $2; it may fail.
    """
    whole = f'mount "$1" "$2" && {{ {script}; }} 2>/dev/null; umount "$2"'

    def harm(image: Path, partition: Partition) -> None:
        argv = ["losetup", "--find", "--show", f"--offset={partition.start}"]
        sized = [*argv, f"--sizelimit={partition.size}", str(image)]
        device = process.run(sized).text.strip()
        try:
            with tempfile.TemporaryDirectory() as place:
                process.run(["unshare", "--mount", "bash", "-c", whole, "change", device, place])
        finally:
            process.run(["losetup", "--detach", device])

    return harm


def flip(seed: int, count: int, *, within: int = 1 << 62) -> Harm:
    """Overwrites `count` bytes that the seed chooses among the first `within` that hold data."""

    def harm(image: Path, partition: Partition) -> None:
        flip_bytes(image, partition.start, min(partition.size, within), seed, count)

    return harm


def flip_bytes(image: Path, start: int, size: int, seed: int, count: int) -> None:
    """Overwrite bytes of blocks that are not zero: there is where something reads."""
    chance = random.Random(seed)
    with image.open("r+b") as file:
        blocks = [at for at in range(start, start + size, 4096) if _holds_data(file.fileno(), at)]
        for _ in range(count):
            at = chance.choice(blocks) + chance.randrange(4096)
            os.pwrite(file.fileno(), bytes([chance.randrange(256)]), at)


def _holds_data(descriptor: int, at: int) -> bool:
    return bool(os.pread(descriptor, 4096, at).strip(b"\0"))
