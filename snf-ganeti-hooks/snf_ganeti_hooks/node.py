"""What this node offers to NICs, read once for a piece of work."""

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from snf_ganeti import process
from snf_ganeti.errors import NodeError
from snf_ganeti_hooks.firewall.base import Base, Tracker
from snf_ganeti_hooks.firewall.profile import parse_profiles
from snf_ganeti_hooks.kernel import nft
from snf_ganeti_hooks.kernel.uplinks import read_uplinks
from snf_ganeti_hooks.networks.routing import Uplinks
from snf_ganeti_hooks.settings import Settings
from snf_ganeti_hooks.state import RUN, write_file


@dataclass(frozen=True)
class Node:
    """uplinks: of each routing table that has a default route."""

    settings: Settings
    tracker: Tracker
    uplinks: dict[int, Uplinks] = field(default_factory=dict)
    run: Path = RUN

    @cached_property
    def base(self) -> Base:
        """What the rules that all NICs share are made from."""
        return Base(self.tracker, parse_profiles(self.settings.profile))

    def find_uplinks(self, table: int) -> Uplinks:
        return self.uplinks.get(table, Uplinks())


def read_node(
    settings: Settings, uplinks: dict[int, Uplinks] | None = None, run: Path = RUN
) -> Node:
    """uplinks: where they are known already. Raises NodeError."""
    known = read_uplinks() if uplinks is None else uplinks
    return Node(settings, read_tracker(run), known, run)


def read_tracker(run: Path = RUN) -> Tracker:
    """What tracks bridged connections; found out by trying once a boot."""
    path = run / "tracker"
    with contextlib.suppress(OSError):
        found = path.read_text().strip()
        if found in ("bridge", "br_netfilter"):
            return "bridge" if found == "bridge" else "br_netfilter"
    tracker = nft.find_tracker()
    if tracker == "br_netfilter":
        with contextlib.suppress(NodeError):
            process.run(["modprobe", "--quiet", "br_netfilter"])
    write_file(path, tracker)
    return tracker
