"""What the benchmarks of volumes share: a bed with Ceph and a node that can use it."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from testbed import appliance
from testbed.bed import DOMAIN, make_node_address, open_bed
from testbed.ceph import ADMIN, OSD_SIZE, Ceph, start_ceph
from testbed.deployed import make_settings, write_settings
from testbed.machine import Bind, Machine
from testbed.roots import BUILD, build_root_with
from testbed.volumes import IMAGES, make_site, prepare_node, run_script

_TOOLS = ("ceph-common", "fio")


@dataclass(frozen=True)
class Site:
    """node: it has the packages of build/deb, Ceph's own tools and an administrator's key."""

    ceph: Ceph
    node: Machine

    def run(self, *argv: str, timeout: float = 300) -> str:
        return self.node.run(*argv, timeout=timeout).text

    def script(self, action: str, volume: str, **variables: str | int) -> str:
        return run_script(self.node, action, volume, **variables).text.strip()

    def remove(self, volume: str) -> None:
        self.script("detach", volume)
        self.script("remove", volume)

    def publish(self, name: str, gibibytes: int) -> str:
        """An image of this size with some data in it; gives its snapshot's name."""
        self.ceph.run("rbd", "create", f"{IMAGES}/{name}", f"--size={gibibytes}G")
        total = ("--io-type=write", "--io-size=1M", "--io-total=64M", "--io-pattern=seq")
        self.ceph.run("rbd", "bench", *total, f"{IMAGES}/{name}", timeout=300)
        self.ceph.run("rbd", "snap", "create", "--no-progress", f"{IMAGES}/{name}@golden")
        return f"{name}@golden"


@contextlib.contextmanager
def open_site(name: str, binds: tuple[Bind, ...] = (), osd_size: int = OSD_SIZE) -> Iterator[Site]:
    """binds: what the node sees of this machine. With the helper's, it is able to deploy.
    osd_size: bytes that the cluster has room for."""
    debs = sorted((BUILD / "deb").glob("*.deb"))
    with open_bed(f"bench-{name}-{os.getpid()}", debs=debs) as bed:
        if appliance.BIND in binds:
            appliance.build(bed)
        ceph = start_ceph(bed, osd_size=osd_size)
        ours, base = bed.layers
        tools, _ = build_root_with(base, _TOOLS)
        node = Machine(f"node1.{DOMAIN}", bed.folder / "node1", (ours, tools, base), binds)
        node.power_on()
        bed.wire.plug(node, make_node_address(1))
        make_site(ceph, node)
        prepare_node(ceph, node)
        ceph.install_client(node, ADMIN)
        write_settings(node, make_settings())
        yield Site(ceph, node)


def measure(act: Callable[..., Any], *arguments: Any, **named: Any) -> float:
    """Seconds that a call takes."""
    began = time.monotonic()
    act(*arguments, **named)
    return time.monotonic() - began
