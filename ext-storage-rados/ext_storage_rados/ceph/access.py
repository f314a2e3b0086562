"""As whom a cluster is reached, and who may write a volume."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True)
class Access:
    """How a cluster is reached. user: a cephx id, without `client.`; timeout: seconds in which
    each of its answers has to come, or 0 to wait for ever."""

    conf: Path
    user: str
    timeout: float = 0


class Mode(StrEnum):
    """Who may write. SHARED: clients hand the lock over when another asks, as librbd does by
    itself; EXCLUSIVE: one client alone."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"
