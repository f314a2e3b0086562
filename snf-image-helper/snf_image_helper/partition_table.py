"""Partition tables: read as sfdisk's JSON, changed by sfdisk scripts.

`plan_growth` is the arithmetic and touches nothing. Units are sectors of the disk.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from snf_ganeti import process
from snf_image_helper.disk import Disk, make_partition_path
from snf_image_helper.task import TaskFailed

MIB = 1 << 20
_EXTENDED = frozenset({"5", "f", "85"})
_SWAP = {"dos": "82", "gpt": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"}
_DOS_LIMIT = 2**32 - 1
"""The first sector that the 32-bit fields of an MBR can't reach."""
_GPT_ENTRIES = 128 * 128
"""Bytes of the partition entries before the backup header."""


@dataclass(frozen=True)
class Entry:
    """One partition of a table."""

    number: int
    start: int
    size: int
    type: str

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class PartitionTable:
    """label: "dos" or "gpt"; sector: bytes."""

    label: str
    sector: int
    entries: tuple[Entry, ...]

    @property
    def extended(self) -> Entry | None:
        if self.label != "dos":
            return None
        return next((entry for entry in self.entries if entry.type in _EXTENDED), None)

    @property
    def last(self) -> Entry | None:
        """The partition that ends last on the disk; an extended one is only a container."""
        containers = _EXTENDED if self.label == "dos" else frozenset()
        real = [entry for entry in self.entries if entry.type not in containers]
        return max(real, key=lambda entry: entry.end) if real else None

    def without(self, swap: "Swap | None") -> "PartitionTable":
        """The table as it is without a swap partition."""
        number = swap.number if swap is not None else 0
        return replace(self, entries=tuple(e for e in self.entries if e.number != number))

    def is_logical(self, entry: Entry) -> bool:
        return self.label == "dos" and entry.number > 4


@dataclass(frozen=True)
class Swap:
    """The swap partition that the image's SWAP property asks for. size: MiB."""

    number: int
    size: int


def parse_swap(text: str) -> Swap | None:
    """SWAP's form `partition:MiB`; None for its other form, a disk's letter."""
    number, colon, size = text.partition(":")
    if not colon:
        return None
    if not (number.isdecimal() and size.isdecimal() and int(number) > 0 and int(size) > 0):
        raise TaskFailed(f"SWAP={text} is neither partition:MiB nor the letter of a disk")
    return Swap(int(number), int(size))


def read_table(disk: Disk) -> PartitionTable:
    """The table on a disk. Raises TaskFailed: none, an empty one, one of another kind."""
    done = process.run(["sfdisk", "--json", disk.path], ok=(0, 1))
    if done.status:
        if "recognized partition table" in done.stderr:
            raise TaskFailed(f"disk {disk.index} has no partition table")
        reason = (done.stderr.strip().splitlines() or ["sfdisk gave no reason"])[-1]
        raise TaskFailed(f"the partition table of disk {disk.index} can't be read: {reason}")
    table = parse_table(done.stdout, disk)
    if not table.entries:
        raise TaskFailed(f"the partition table of disk {disk.index} is empty")
    return table


def parse_table(document: bytes, disk: Disk) -> PartitionTable:
    """What `sfdisk --json` prints. Raises TaskFailed for labels other than MBR and GPT."""
    fields = json.loads(document)["partitiontable"]
    label = fields["label"]
    if label not in _SWAP:
        raise TaskFailed(
            f"disk {disk.index} has a partition table of type {label}; "
            "only MBR (dos) and GPT can grow"
        )
    entries = (
        Entry(
            int(each["node"].removeprefix(fields["device"]).lstrip("p")),
            each["start"],
            each["size"],
            each["type"],
        )
        for each in fields.get("partitions", ())
    )
    return PartitionTable(label, fields.get("sectorsize", disk.sector), tuple(entries))


def plan_growth(table: PartitionTable, disk_size: int, swap: Swap | None = None) -> PartitionTable:
    """The table with its last partition grown to the disk's end, and swap behind it.

    disk_size: bytes. Ends are kept on whole MiB; nothing moves and nothing shrinks.
    Raises TaskFailed when there is no place for what is asked.
    """
    last, grain = table.last, MIB // table.sector
    if last is None:
        raise TaskFailed("the partition table holds nothing but an empty extended partition")
    end = disk_end = _find_end(table, disk_size) // grain * grain
    extended = table.extended
    inside = extended is not None and table.is_logical(last)
    if swap is not None:
        _require_free(table, swap, inside)
        added = Entry(swap.number, end - swap.size * grain, swap.size * grain, _SWAP[table.label])
        # A logical partition is led by a sector that describes it; it gets a whole grain.
        end = added.start - (grain if swap.number > 4 and inside else 0)
        if end < last.end:
            raise TaskFailed(f"{swap.size} MiB of swap do not fit behind partition {last.number}")
    grown = {last.number: _stretch(last, end, grain)}
    if extended is not None and inside:
        inner = disk_end if swap is not None and swap.number > 4 else end
        grown[extended.number] = _stretch(extended, inner, grain)
    entries = [grown.get(entry.number, entry) for entry in table.entries]
    return replace(table, entries=(*entries, added) if swap is not None else tuple(entries))


def _stretch(entry: Entry, end: int, grain: int) -> Entry:
    """The entry with a new end. sfdisk does not see free space of less than a grain between
    aligned sectors, so less than two stay unused."""
    return entry if end < entry.end + 2 * grain else replace(entry, size=end - entry.start)


def make_scripts(
    device: str, old: PartitionTable, new: PartitionTable
) -> list[tuple[list[str], str]]:
    """The runs of sfdisk, as (arguments, script), that make `new` of `old` in place.

    Containers grow before what they contain; all else of an entry stays as it is.
    """
    before = {entry.number: entry for entry in old.entries}
    changed = [entry for entry in new.entries if before.get(entry.number) != entry]
    scripts = [(["--relocate", "gpt-bak-std"], "")] if new.label == "gpt" else []
    for entry in sorted(changed, key=lambda entry: entry.type not in _EXTENDED):
        if entry.number in before:
            scripts.append((["--partno", str(entry.number)], f"size={entry.size}\n"))
        else:
            line = f"start={entry.start}, size={entry.size}, type={entry.type}\n"
            scripts.append((["--append"], f"{make_partition_path(device, entry.number)} : {line}"))
    return scripts


def write_table(disk: Disk, old: PartitionTable, new: PartitionTable) -> None:
    """Write what differs and read it back. Raises TaskFailed, CommandError."""
    for options, script in make_scripts(disk.path, old, new):
        argv = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel"]
        process.run([*argv, *options, disk.path], stdin=script.encode())
    if sorted(read_table(disk).entries, key=_number) != sorted(new.entries, key=_number):
        raise TaskFailed(f"the partition table of disk {disk.index} does not hold what was written")


def _number(entry: Entry) -> int:
    return entry.number


def _find_end(table: PartitionTable, disk_size: int) -> int:
    sectors = disk_size // table.sector
    if table.label == "dos":
        return min(sectors, _DOS_LIMIT)
    return sectors - 1 - _GPT_ENTRIES // table.sector


def _require_free(table: PartitionTable, swap: Swap, inside: bool) -> None:
    used: Sequence[int] = [entry.number for entry in table.entries]
    if swap.number in used:
        raise TaskFailed(f"SWAP asks for partition {swap.number}, which the image already has")
    if table.label != "dos" or swap.number <= 4:
        return
    following = max([4, *used]) + 1
    if not inside or swap.number != following:
        raise TaskFailed(
            f"SWAP asks for logical partition {swap.number}; "
            + (f"the next one is {following}" if inside else "no logical partition ends the disk")
        )
