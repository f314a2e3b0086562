"""File systems grown and mounted for real, on loop devices. Needs root.

What grew is judged by dumpe2fs, xfs_db and btrfs' own reader of superblocks.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snf_image_helper import mounts
from snf_image_helper.disk import Disk
from snf_image_helper.filesystem import FILE_SYSTEMS, grow, mounted, read_superblock
from snf_image_helper.mounts import mount_image
from snf_image_helper.protocol import Request
from snf_image_helper.task import Context, TaskFailed
from snf_image_helper.tasks import umount_image

OLD, NEW = 400 << 20, 900 << 20
MAKE = {
    "ext2": ["mkfs.ext2", "-q", "-F"],
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q"],
    "btrfs": ["mkfs.btrfs", "-q"],
    "vfat": ["mkfs.vfat"],
}
LoopMaker = Callable[..., str]
Mount = Callable[..., tuple[Context, list[str]]]


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def make_loop(tmp_path: Path) -> Iterator[LoopMaker]:
    """Makes a file system of some bytes on a loop device of others."""
    devices: list[str] = []

    def make(kind: str, *options: str, old: int = OLD, new: int = NEW) -> str:
        path = tmp_path / f"disk{len(devices)}"
        path.touch()
        os.truncate(path, old)
        if kind:
            run(*MAKE[kind], *options, str(path))
        os.truncate(path, new)
        devices.append(run("losetup", "--find", "--show", str(path)).strip())
        return devices[-1]

    yield make
    for device in devices:
        run("losetup", "--detach", device)


def grow_whole(device: str, size: int = NEW) -> None:
    kind = read_superblock(device).type
    growth = FILE_SYSTEMS[kind].growth
    assert growth is not None
    grow(device, size, kind, growth)


def read_size(kind: str, device: str) -> int:
    """The size as the file system's own offline tool tells it, in bytes."""
    if kind == "xfs":
        text = run("xfs_db", "-r", "-c", "sb 0", "-c", "p dblocks blocksize", device)
        blocks, size = re.findall(r"= (\d+)", text)
    elif kind == "btrfs":
        text = run("btrfs", "inspect-internal", "dump-super", device)
        blocks, size = re.findall(r"^total_bytes\s+(\d+)", text, re.MULTILINE)[0], "1"
    else:
        text = run("dumpe2fs", "-h", device)
        blocks, size = re.findall(r"^Block (?:count|size):\s+(\d+)", text, re.MULTILINE)
    return int(blocks) * int(size)


@pytest.mark.parametrize("kind", ["ext2", "ext4", "xfs", "btrfs"])
def test_growth_keeps_what_is_there(make_loop: LoopMaker, kind: str) -> None:
    device = make_loop(kind)
    with mounted(device, read_superblock(device).type) as place:
        Path(place, "file").write_text("kept")
    grow_whole(device)
    assert NEW - (16 << 20) <= read_size(kind, device) <= NEW
    grow_whole(device)  # once more is no harm
    with mounted(device, read_superblock(device).type) as place:
        assert Path(place, "file").read_text() == "kept"


def test_a_btrfs_that_the_kernel_finds_too_small_is_one_line(make_loop: LoopMaker) -> None:
    small, size = 128 << 20, 255 << 20
    device = make_loop("btrfs", old=small, new=size)
    match = (
        f"^btrfs on {device} can't grow to 255 MiB: .*256 MiB on; give a larger disk, or .*=yes$"
    )
    with pytest.raises(TaskFailed, match=match):
        grow_whole(device, size)
    assert read_size("btrfs", device) == small


@pytest.mark.parametrize(("old", "new"), [(128 << 20, 128 << 20), (128 << 20, 256 << 20)])
def test_a_small_btrfs_that_fills_its_partition_or_can_is_grown(
    make_loop: LoopMaker, old: int, new: int
) -> None:
    device = make_loop("btrfs", old=old, new=new)
    grow_whole(device, new)
    assert read_size("btrfs", device) == new


def test_a_corrupt_file_system_is_refused(make_loop: LoopMaker) -> None:
    device = make_loop("ext4")
    with mounted(device, read_superblock(device).type) as place:
        for number in range(200):
            Path(place, f"file{number}").write_text("x")
    with open(device, "r+b") as file:  # the inode tables of the first group
        file.seek(1 << 20)
        file.write(b"\xa5" * (8 << 20))
    with pytest.raises(TaskFailed, match=f"ext4 on {device} is corrupt and e2fsck can't repair it"):
        grow_whole(device)
    assert read_size("ext4", device) == OLD


def test_nothing_of_the_image_is_executable(make_loop: LoopMaker) -> None:
    with mounted(make_loop("ext4"), "ext4") as place:
        options = run("findmnt", "--noheadings", "--output", "OPTIONS", place)
        assert {"nodev", "nosuid", "noexec"} <= set(options.strip().split(","))


def fill_root(device: str, fstab: str, folder: str = "", name: str = "12") -> None:
    with mounted(device, read_superblock(device).type) as place:
        etc = Path(place, folder, "etc")
        etc.mkdir(parents=True)
        (etc / "fstab").write_text(fstab)
        (etc / "os-release").write_text(f"ID=debian\nVERSION_ID={name}\n")


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    """Mounts whole disks as an image, and unmounts what was mounted at the end."""
    monkeypatch.setattr(mounts, "ROOT", str(tmp_path / "root"))
    contexts: list[Context] = []

    def mount(*devices: str, **properties: str) -> tuple[Context, list[str]]:
        warnings: list[str] = []
        disks = [Disk(at, device, NEW, 512) for at, device in enumerate(devices)]
        request = Request("create", "web", len(disks), properties=properties)
        contexts.append(Context(request, disks, warnings.append))
        mount_image(contexts[-1])
        return contexts[-1], warnings

    yield mount
    for context in contexts:
        if context.mounted:
            umount_image.run(context)


def test_what_fstab_lists_is_mounted_where_it_says(
    make_loop: LoopMaker, mount: Mount, tmp_path: Path
) -> None:
    root, by_name, by_uuid = (make_loop(kind) for kind in ("ext4", "ext2", "xfs"))
    labelled = make_loop("ext4", "-L", "da ta")
    uuid = run("blkid", "--probe", "--output", "value", "--match-tag", "UUID", by_uuid).strip()
    fill_root(
        root,
        "/dev/vda / ext4 defaults 0 1\n"
        "LABEL=da\\040ta /var/lib/link/data ext4 defaults,suid,dev,exec 0 2\n"
        "/dev/vdc /var ext2 defaults 0 2\n"
        f"UUID={uuid} /boot/efi xfs umask=0077 0 1\n"
        "UUID=00-00 /gone ext4 nofail 0 2\n"
        "UUID=00-01 none swap sw 0 0\n"
        "server:/x /x nfs defaults 0 0\n"
        "LABEL=usb /media/usb ext4 noauto 0 0\n",
    )
    with mounted(root, read_superblock(root).type) as place:
        Path(place, "srv").mkdir()
    with mounted(
        by_name, read_superblock(by_name).type
    ) as place:  # a way out, if it were resolved by the helper's own root
        Path(place, "lib").mkdir()
        Path(place, "lib/link").symlink_to("/srv")
    context, warnings = mount(root, labelled, by_name, by_uuid)
    base = str(tmp_path / "root")
    assert context.mounted == [base, f"{base}/var", f"{base}/boot/efi", f"{base}/srv/data"]
    assert warnings == ["/gone of the guest's fstab (UUID=00-00): no such file system"]
    assert context.guest is not None and context.guest.likes[0] == "debian"
    umount_image.run(context)
    assert base not in Path("/proc/self/mountinfo").read_text()


def test_a_missing_file_system_is_named_and_nothing_stays_mounted(
    make_loop: LoopMaker, mount: Mount, tmp_path: Path
) -> None:
    root = make_loop("ext4")
    fill_root(root, "PARTUUID=12-01 /srv ext4 defaults 0 2\n")
    with pytest.raises(TaskFailed, match=r"^/srv of the guest's fstab \(PARTUUID=12-01\): no such"):
        mount(root)


def test_nothing_is_mounted_over_the_root(
    make_loop: LoopMaker, mount: Mount, tmp_path: Path
) -> None:
    """The next entry's mount point would be found in one tree and mounted in another's, where
    it is a way out."""
    root, cover = make_loop("ext4"), make_loop("ext4")
    fill_root(root, "/dev/vdb /. ext4 nofail 0 0\n/dev/vda /srv ext4 defaults 0 0\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    with mounted(cover, read_superblock(cover).type) as place:
        Path(place, "srv").symlink_to(outside)
    context, warnings = mount(root, cover)
    assert warnings == ["/. of the guest's fstab (/dev/vdb): it would be mounted over the root"]
    assert context.mounted == [str(tmp_path / "root"), str(tmp_path / "root/srv")]
    assert not outside.is_mount()


def test_an_fstab_of_too_many_lines_is_refused(make_loop: LoopMaker, mount: Mount) -> None:
    root = make_loop("ext4")
    fill_root(root, "LABEL=x /srv ext4 nofail 0 0\n" * 101)
    with pytest.raises(TaskFailed, match="fstab lists more than 100 file systems"):
        mount(root)


@pytest.mark.parametrize("folder", ["", "@rootfs"])
def test_a_root_in_a_subvolume(make_loop: LoopMaker, mount: Mount, folder: str) -> None:
    device = make_loop("btrfs")
    with mounted(device, read_superblock(device).type) as place:
        for name in (folder, "@home"):
            if name:
                run("btrfs", "subvolume", "create", f"{place}/{name}")
        Path(place, "@home/mark").touch()
    fill_root(device, "/dev/sda /home btrfs subvol=@home 0 0\n", folder)
    context, _ = mount(device)
    assert context.guest is not None and context.guest.tree.is_file("/home/mark")


@pytest.mark.parametrize(
    ("kind", "properties", "reason"),
    [
        ("ext4", {}, "no root file system found: disk 0 has no /etc of a Linux system"),
        ("vfat", {}, "no root file system found: disk 0 holds vfat"),
        ("", {}, "no root file system found: no file system"),
        ("ext4", {"ROOT_PARTITION": "3"}, "ROOT_PARTITION=3: the image has no such partition"),
        ("ext4", {"ROOT_PARTITION": "x"}, "ROOT_PARTITION=x is not a partition's number"),
    ],
)
def test_no_root(
    make_loop: LoopMaker,
    mount: Mount,
    kind: str,
    properties: dict[str, str],
    reason: str,
) -> None:
    with pytest.raises(TaskFailed, match=reason):
        mount(make_loop(kind), **properties)


def test_a_file_system_that_does_not_mount_is_named(make_loop: LoopMaker, mount: Mount) -> None:
    device = make_loop("xfs")
    with open(device, "r+b") as file:  # the superblock's checksum no longer fits
        file.seek(200)
        file.write(b"\xff" * 16)
    with pytest.raises(TaskFailed, match=r"disk 0: .*can't be mounted: "):
        mount(device)
