"""Tags of running instances: read on the master, brought to the nodes where instances run.

A job that changes tags runs no hook and tells no node. So the master's daemon asks Ganeti
itself, as often as it changed its configuration, writes the tags of each node's instances to
a file, and copies that to the node with Ganeti's own means. Each node's daemon follows its
file. Times are each node's own: the file's is when it arrived.
"""

import json
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import SnfError
from snf_ganeti_hooks.cluster import ganeti, luxi
from snf_ganeti_hooks.firewall.profile import TAG_PREFIX
from snf_ganeti_hooks.state import RUN, NicState, replace_tags, write_file

log = logging.getLogger(__name__)

Tags = Mapping[str, tuple[str, ...]]
"""Instance → those of its tags that choose profiles."""
_SIZE_LIMIT = 64 << 20
_COPY_SECONDS = 60.0


@dataclass(frozen=True)
class TagFile:
    """arrived: seconds since the epoch."""

    tags: Tags
    arrived: float


def find_path(run: Path = RUN) -> Path:
    return run / "tags.json"


def read_file(path: Path) -> TagFile | None:
    """The tags that came from the master; None without, or when they can't be read."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_SIZE_LIMIT))
        tags = {str(name): tuple(map(str, each)) for name, each in document.items()}
        return TagFile(tags, path.stat().st_ctime)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def find_changed(states: Mapping[str, NicState], file: TagFile) -> list[NicState]:
    """The NICs whose instance has other tags now, with these. A NIC set up after the file
    came has newer ones."""
    return [
        replace_tags(each, file.tags[each.nic.instance])
        for each in states.values()
        if each.nic.instance in file.tags
        and (not each.tags_known or file.arrived > each.created)
        and (not each.tags_known or file.tags[each.nic.instance] != keep_profiles(each.nic.tags))
    ]


def keep_profiles(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(tag for tag in tags if tag.startswith(TAG_PREFIX)))


class Master:
    """What the daemon does about tags while its node is the master."""

    def __init__(self, run: Path = RUN, data: Path = ganeti.DATA) -> None:
        self.run = run
        self.data = data
        self._seen: tuple[int, int] | None = None
        self._delivered: dict[str, Tags] = {}

    def follow(self) -> None:
        """Deliver what changed since last time; a node that can't be reached is tried again."""
        if ganeti.read_ssconf("master_node", self.data) != socket.getfqdn():
            self._seen, self._delivered = None, {}
            return
        seen = self._stamp()
        if seen == self._seen:
            return
        try:
            found = query_tags()
        except SnfError as error:
            log.warning("tags can't be read: %s", error)
            return
        failed = [node for node, tags in found.items() if not self._deliver(node, tags)]
        if not failed:
            self._seen = seen

    def _stamp(self) -> tuple[int, int]:
        try:
            status = (self.data / "config.data").stat()
        except OSError:
            return (0, 0)
        return status.st_mtime_ns, status.st_ino

    def _deliver(self, node: str, tags: Tags) -> bool:
        if self._delivered.get(node) == tags:
            return True
        text = json.dumps({name: list(each) for name, each in sorted(tags.items())})
        try:
            if node == socket.getfqdn():
                write_file(find_path(self.run), text)
            else:
                copy_to_node(node, text, find_path(self.run))
        except SnfError as error:
            log.warning("tags can't be brought to %s: %s", node, error)
            return False
        self._delivered[node] = tags
        return True


def query_tags() -> dict[str, Tags]:
    """Node → the tags of the instances whose primary node it is. Raises NodeError."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, node, tags in luxi.query("instance", ("name", "pnode", "tags")):
        if name and node:
            found.setdefault(node, {})[name] = keep_profiles(tuple(tags or ()))
    return dict(found)


def copy_to_node(node: str, text: str, path: Path) -> None:
    """Put a file on a node, with the keys and the known hosts that Ganeti keeps for that.

    Raises SnfError.
    """
    cluster = ganeti.read_ssconf("cluster_name")
    process.run(make_copy_argv(node, cluster, path), stdin=text.encode(), timeout=_COPY_SECONDS)


def make_copy_argv(node: str, cluster: str, path: Path) -> list[str]:
    """ssh's argv, with the options that Ganeti itself uses (lib/ssh.py)."""
    options = (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        f"HostKeyAlias={cluster}",
        f"GlobalKnownHostsFile={ganeti.DATA / 'known_hosts'}",
        "UserKnownHostsFile=/dev/null",
        "CheckHostIP=no",
        "ConnectTimeout=10",
    )
    draft = f"{path}.draft"
    return [
        "ssh",
        *(f"-o{option}" for option in options),
        f"root@{node}",
        f"cat >{draft} && mv {draft} {path}",
    ]
