"""The growth of the file system in the partition that ends last on a disk."""

from snf_image_helper.disk import Disk, Partition, find_partitions
from snf_image_helper.filesystem import FILE_SYSTEMS, grow, read_superblock
from snf_image_helper.partition_table import parse_swap, read_table
from snf_image_helper.task import Context, Skip, TaskFailed


def grow_last(context: Context, *, mounted: bool) -> None:
    """Grow it if it is of the sort that grows mounted, or of the sort that doesn't.

    Raises Skip, TaskFailed, CommandError.
    """
    if context.last is None:  # asking takes two programs, and two tasks ask
        context.last = _find_last(context.disks[0], context.request.properties.get("SWAP", ""))
    partition, kind = context.last
    growth = FILE_SYSTEMS[kind].growth if kind in FILE_SYSTEMS else None
    if growth is None:
        raise Skip(
            f"partition {partition.number} holds {kind or 'nothing known'}, which does not grow"
        )
    if growth.mounted is not mounted:
        raise Skip(f"{kind} grows while {'' if growth.mounted else 'not '}mounted")
    grow(partition.path, partition.size, kind, growth)


def _find_last(disk: Disk, swap: str) -> tuple[Partition, str]:
    """The partition and what it holds.

    swap: the property, which had a partition put behind it. The table itself says which one
    grew, so that nothing here can disagree with what wrote it.
    """
    last = read_table(disk).without(parse_swap(swap)).last
    number = last.number if last is not None else 0
    found = [each for each in find_partitions(disk) if each.number == number]
    if not found:
        raise TaskFailed(f"the kernel shows no partition {number} on disk {disk.index}")
    return found[0], read_superblock(found[0].path).type
