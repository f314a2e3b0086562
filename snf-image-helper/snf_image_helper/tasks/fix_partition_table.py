"""The partition table made to fit the disk: its last partition grows to the disk's end."""

from snf_image_helper.disk import find_partitions, reread_partitions
from snf_image_helper.partition_table import parse_swap, plan_growth, read_table, write_table
from snf_image_helper.task import Context, Skip, Task, TaskFailed


def run(context: Context) -> None:
    disk = context.disks[0]
    swap = parse_swap(context.request.properties.get("SWAP", ""))
    old = read_table(disk)
    new = plan_growth(old, disk.size, swap)
    write_table(disk, old, new)
    reread_partitions(disk)
    known = {partition.number for partition in find_partitions(disk)}
    if lost := {entry.number for entry in new.entries} - known:
        raise TaskFailed(f"the kernel refuses partitions {sorted(lost)} of disk {disk.index}")
    if new == old:
        raise Skip("the last partition ends at the disk's end")


TASK = Task("FixPartitionTable", 10, run)
