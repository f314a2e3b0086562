"""The growth of the file system in the partition that ends last on a disk."""

from snf_image_helper.disk import Disk, find_partitions
from snf_image_helper.filesystem import FILE_SYSTEMS, grow, read_superblock
from snf_image_helper.partition_table import Swap, read_table
from snf_image_helper.task import Skip, TaskFailed


def grow_last(disk: Disk, swap: Swap | None, *, mounted: bool) -> None:
    """Grow it if it is of the sort that grows mounted, or of the sort that doesn't.

    swap: the partition that was put behind it. The table itself says which one grew, so
    that nothing here can disagree with what wrote it. Raises Skip, TaskFailed, CommandError.
    """
    last = read_table(disk).without(swap).last
    number = last.number if last is not None else 0
    found = [each for each in find_partitions(disk) if each.number == number]
    if not found:
        raise TaskFailed(f"the kernel shows no partition {number} on disk {disk.index}")
    partition = found[0]
    kind = read_superblock(partition.path).type
    growth = FILE_SYSTEMS[kind].growth if kind in FILE_SYSTEMS else None
    if growth is None:
        raise Skip(f"partition {number} holds {kind or 'nothing known'}, which does not grow")
    if growth.mounted is not mounted:
        raise Skip(f"{kind} grows while {'' if growth.mounted else 'not '}mounted")
    grow(partition.path, partition.size, kind, growth)
