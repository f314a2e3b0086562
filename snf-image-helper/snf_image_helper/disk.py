"""The instance's disks as the helper's kernel shows them, and their partitions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Disk:
    """Disk `index` of the instance. path: `/dev/sda`; size: bytes; sector: bytes."""

    index: int
    path: str
    size: int
    sector: int
