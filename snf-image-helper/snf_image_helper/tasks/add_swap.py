"""Swap space: made, and listed in the guest's fstab."""

import uuid
from collections.abc import Sequence

from snf_ganeti import process
from snf_image_helper import fstab
from snf_image_helper.disk import Disk, make_partition_path, parse_letters
from snf_image_helper.filesystem import read_superblock
from snf_image_helper.partition_table import parse_swap
from snf_image_helper.task import Context, Skip, Task, TaskFailed


def run(context: Context) -> None:
    assert context.guest is not None
    text = context.request.properties.get("SWAP", "").strip()
    if not text:
        raise Skip("no SWAP property")
    device = find_device(text, context.disks)
    made = str(uuid.uuid4())
    process.run(["mkswap", "--uuid", made, device])
    found = read_superblock(device)
    if (found.type, found.uuid) != ("swap", made):
        raise TaskFailed(f"{device} holds {found.type or 'nothing known'} after mkswap")
    tree = context.guest.tree
    old = tree.read_text(fstab.PATH) if tree.stat(fstab.PATH) is not None else ""
    tree.write_text(fstab.PATH, fstab.add_line(old, f"UUID={made} none swap sw 0 0"))


def find_device(text: str, disks: Sequence[Disk]) -> str:
    """The device that SWAP names: `partition:MiB` on the first disk, or a whole further
    disk by its letter, from b on. Raises TaskFailed."""
    swap = parse_swap(text)
    if swap is not None:
        return make_partition_path(disks[0].path, swap.number)
    if not (text.isascii() and text.isalpha() and text.islower() and len(text) <= 2):
        raise TaskFailed(f"SWAP={text} is neither partition:MiB nor the letter of a disk")
    index = parse_letters(text)
    if index == 0:
        raise TaskFailed(f"SWAP={text} names the disk that holds the image")
    if index >= len(disks):
        raise TaskFailed(f"SWAP={text} names disk {index}; the instance has {len(disks)}")
    return disks[index].path


TASK = Task("AddSwap", 50, run, needs_mount=True)
