"""The demonstration: a Ganeti cluster deploys an image, the instance is logged in to, and a
second one is a clone of the image on Ceph.

    python3 -m testbed.demo up      leaves the cluster running, under the name `demo`
    python3 -m testbed.demo down

Each stage is timed. What is shown of the instance is what the instance itself says, over SSH;
of Ganeti's job, the events as snf-ganeti-eventd tells them; of the console, a picture of its
page, which Chromium makes; of the clone, what Ceph's own `rbd` tells of its disk.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from snf_ganeti import process
from snf_ganeti.errors import InputError, run_main
from testbed import appliance, images
from testbed.bed import Bed, close_bed, open_bed
from testbed.ceph import Ceph, start_ceph
from testbed.deadline import wait_for
from testbed.deployed import (
    IMAGES,
    PASSWORD,
    PASSWORD_HASH,
    Deployed,
    Personality,
    make_key,
    make_settings,
    write_settings,
)
from testbed.events import open_tail
from testbed.ganeti import Cluster, create_cluster
from testbed.machine import Bind
from testbed.roots import BUILD
from testbed.shown_console import start_console
from testbed.ssh import log_in
from testbed.volumes import POOL, PUBLISHER, find_volume, make_site, prepare_node

NAME = "demo"
SCREENSHOT = BUILD / "demo-console.png"
INSTANCE, CLONE = "web.bed.test", "clone.bed.test"
ADDRESS, CLONE_ADDRESS = "10.78.0.51", "10.78.0.52"
GOLDEN = "debian12"
IMAGE = images.RECIPES["bookworm-mbr-ext4"]
CLONED: Mapping[str, Any] = {
    "name": CLONE,
    "image": f"rbd:images/{GOLDEN}@golden",
    "address": CLONE_ADDRESS,
    "template": "ext",
    "disks": (f"3G,provider=rados,origin={GOLDEN}@golden",),
}
"""How the clone differs from the first instance."""
_WELCOME = Personality("/etc/motd", b"Deployed by snf-image: nobody on the node opened me.\n")
_BOOT_SECONDS = 600.0
_EVENT_SECONDS = 30.0
_FOLLOW_SECONDS = 1.2
"""tail(1) looks once a second whether there is more to show."""
_SHOWN = (
    ("host name", "hostname"),
    ("disk", "lsblk --noheadings --output NAME,SIZE,FSSIZE,MOUNTPOINT /dev/vda"),
    ("network", "ip -brief address show scope global"),
    ("/etc/motd", "cat /etc/motd"),
)


@dataclass
class Stages:
    """How long each stage took, in seconds, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Say what begins; note how long the block took, if it ended well."""
        print(f"\n── {name}", flush=True)
        begun = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begun

    def make_table(self) -> str:
        rows = {**self.seconds, "all": sum(self.seconds.values())}
        width = max(map(len, rows))
        return "\n".join(f"  {name:<{width}} {seconds:8.1f} s" for name, seconds in rows.items())


def up() -> None:
    """Bring the demonstration up and leave it running."""
    stages = Stages()
    with stages.timed("build the Debian image"):
        image = images.build(IMAGE)
        print(f"{image.name}: {image.stat().st_size >> 20} MiB")
    with contextlib.ExitStack() as stack:
        with stages.timed("make the node's root, with the packages installed"):
            appliance.FOLDER.mkdir(parents=True, exist_ok=True)
            bed = stack.enter_context(
                open_bed(NAME, debs=find_debs(), binds=make_binds(), keep=True)
            )
        with stages.timed("build the helper VM"):
            appliance.build(bed)
        with stages.timed("create the Ganeti cluster"):
            cluster = create_cluster(bed)
            write_settings(cluster.node, make_settings())
        instance = make_instance(bed, image)
        with stages.timed("gnt-instance add, and its events as they come"):
            add_instance(cluster, instance)
        with stages.timed("boot, until a login by SSH"):
            show_instance(cluster, instance)
        with stages.timed("open the console"):
            console = start_console(cluster)
            print(f"  its page: {console.save_screenshot(INSTANCE, SCREENSHOT)}")
            url = console.make_url(INSTANCE)
        with stages.timed("start Ceph, and publish the image as a golden one"):
            ceph = start_storage(cluster, image)
        with stages.timed("gnt-instance add of a clone: nothing is copied"):
            show_clone(cluster, ceph, replace(instance, **CLONED))
    print(f"\n── How long each stage took\n{stages.make_table()}")
    print(f"\n── What to do next\n{make_hints(cluster, instance, url)}")


def find_debs() -> list[Path]:
    return sorted((BUILD / "deb").glob("*.deb"))


def make_binds() -> tuple[Bind, ...]:
    """What a node sees of this machine: the helper's appliance, and the images."""
    return (appliance.BIND, Bind(images.FOLDER, IMAGES))


def make_instance(bed: Bed, image: Path) -> Deployed:
    return Deployed(
        name=INSTANCE,
        image=image.name,
        address=ADDRESS,
        key=make_key(bed.folder / "key"),
        personality=(_WELCOME,),
        secrets={"img_passwd_hash": PASSWORD_HASH},
    )


def add_instance(cluster: Cluster, instance: Deployed) -> None:
    """Have Ganeti deploy it, while the events of the job are shown."""
    events = cluster.bed.folder / "events"
    show = ["tail", "--follow", "--lines=+1", str(events)]
    with open_tail(cluster.node, events), process.spawn(show, stdout=sys.stdout.fileno()):
        print(cluster.add_instance(instance.name, *instance.make_options()))
        wait_for("the job's last event", lambda: "success" in events.read_text(), _EVENT_SECONDS)
        time.sleep(_FOLLOW_SECONDS)


def show_instance(cluster: Cluster, instance: Deployed) -> None:
    """Log in and show what the instance says of itself, and the node of its NIC."""
    with log_in(cluster.bed.wire, instance.host, _BOOT_SECONDS) as login:
        for what, command in _SHOWN:
            lines = login.run(command).rstrip().splitlines()
            print(f"  {what:<10} " + "\n             ".join(lines))
    shown = cluster.node.run("snf-network", "show").text.rstrip().splitlines()
    print("  its NIC    " + "\n             ".join(shown))


def start_storage(cluster: Cluster, image: Path) -> Ceph:
    """A Ceph that the cluster's node uses, with a golden image."""
    ceph = start_ceph(cluster.bed)
    make_site(ceph, cluster.node)
    prepare_node(ceph, cluster.node)
    ceph.install_client(cluster.node, PUBLISHER)
    publish = ("snf-rados-image", "publish", f"{IMAGES}/{image.name}", "--name", GOLDEN)
    print(f"  {cluster.run(*publish)}", end="")
    return ceph


def show_clone(cluster: Cluster, ceph: Ceph, instance: Deployed) -> None:
    """Have Ganeti add it; where its disk's data is, Ceph tells. It goes on booting."""
    print(cluster.add_instance(instance.name, *instance.make_options()))
    usage = ("rbd", "disk-usage", f"{POOL}/{find_volume(cluster, instance.name)}")
    print(ceph.run(*usage), end="")


def make_hints(cluster: Cluster, instance: Deployed, url: str) -> str:
    """Commands for people, each to be typed as it is."""
    bed = cluster.bed
    ssh = f"ssh -i {instance.key} -o UserKnownHostsFile=/dev/null root@{instance.address}"
    return "\n".join(
        (
            "a shell on the node (try: gnt-instance list, gnt-job list, snf-image check):",
            f"  {cluster.node.make_shell_command()}",
            f"  (and of the golden image and its clone: snf-rados-image show {GOLDEN})",
            f"a shell in the instance (its password on the console is: {PASSWORD}):",
            f"  sudo nsenter --target={bed.wire.machine.pid} --net -- {ssh}",
            "the instance's screen in a browser of this machine, once, within a day:",
            f"  {url}",
            "the end of it all:",
            "  sudo make demo-down",
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description="The demonstration.")
    parser.add_argument("verb", choices=("up", "down"))
    if parser.parse_args().verb == "up":
        if not find_debs():
            raise InputError("no packages are built", hint="run: sudo make demo")
        up()
    else:
        close_bed(NAME)
        print("The demo is down.")
    return 0


if __name__ == "__main__":
    run_main(main)
