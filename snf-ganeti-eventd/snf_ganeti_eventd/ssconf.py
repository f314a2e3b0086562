"""What every node knows of its cluster: small files that Ganeti keeps the same everywhere."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_LIMIT = 4096
MASTER = "ssconf_master_node"
CLUSTER = "ssconf_cluster_name"


@dataclass(frozen=True)
class Role:
    """cluster: its name, empty on a node of none; is_master: is this node its master?"""

    cluster: str
    is_master: bool


def read_role(ganeti_dir: Path, hostname: str = "") -> Role:
    """This node's role. Ganeti itself compares the plain host name, as does this."""
    master, cluster = _read(ganeti_dir / MASTER), _read(ganeti_dir / CLUSTER)
    own = hostname or socket.gethostname()
    return Role(cluster, bool(cluster) and master == own)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return os.fsdecode(file.read(_LIMIT)).strip()
    except OSError:
        return ""
