"""Volumes on the bed's Ceph: a site's pools and keys, golden images, the provider's scripts."""

import contextlib
import json
import random
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from snf_ganeti.process import Completed
from testbed.ceph import ADMIN, Ceph
from testbed.ganeti import Cluster
from testbed.machine import Machine

POOL = "ganeti"
IMAGES = "images"
MEBIBYTE = 1 << 20
NODE, PUBLISHER = "client.ganeti", "client.publisher"
SCRIPTS = "/usr/share/ganeti/extstorage/rados"
_BLANK_OS = {
    "ganeti_api_version": "20\n",
    "parameters.list": "",
    **dict.fromkeys(("create", "rename", "verify"), "#!/bin/sh\nexit 0\n"),
    "export": '#!/bin/sh\ncat "$EXPORT_DEVICE"\n',
    "import": '#!/bin/sh\ncat >"$IMPORT_DEVICE"\n',
}
_SCRIPT_SECONDS = 180.0
SETTINGS = "/etc/ext-storage-rados/conf.d/bed.toml"
_PASSING = "/etc/ext-storage-rados/conf.d/passing.toml"


def make_site(ceph: Ceph, node: Machine) -> None:
    """Pools for volumes and images, and the keys that `snf-rados-image` makes on a node with
    the package; the administrator's key is there only meanwhile."""
    for pool in (POOL, IMAGES):
        ceph.create_pool(pool)
    ceph.install_client(node, ADMIN)
    node.run("snf-rados-image", "make-keys")
    node.run("rm", f"/etc/ceph/ceph.{ADMIN}.keyring")


def prepare_node(ceph: Ceph, node: Machine, **settings: str | float) -> None:
    """What a node needs: Ceph's configuration, the nodes' key, and settings of ours."""
    ceph.install_client(node, NODE)
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    node.write(SETTINGS, lines)


@contextlib.contextmanager
def setting(node: Machine, line: str) -> Iterator[None]:
    """A line more in the node's settings, for the block."""
    node.write(_PASSING, f"{line}\n")
    try:
        yield
    finally:
        node.run("rm", _PASSING)


def install_blank_os(node: Machine) -> None:
    """An OS definition, `blank`, that leaves the disk as it is."""
    for name, content in _BLANK_OS.items():
        node.write(f"/usr/share/ganeti/os/blank/{name}", content, mode=0o755)


def publish(ceph: Ceph, name: str, content: bytes, *, size: int) -> str:
    """A golden image of `size` MiB that begins with `content`; gives its snapshot's name.

    Made by Ceph's own tools, which know nothing of ours.
    """
    ceph.run("rbd", "import", "--no-progress", "-", f"{IMAGES}/{name}", stdin=content)
    ceph.run("rbd", "resize", "--no-progress", f"--size={size}M", f"{IMAGES}/{name}")
    ceph.run("rbd", "snap", "create", "--no-progress", f"{IMAGES}/{name}@golden")
    return f"{name}@golden"


def make_environment(volume: str, **variables: str | int) -> dict[str, str]:
    """A script's environment; `size=`, `origin=` … become what Ganeti calls them."""
    names = {
        "size": "VOL_SIZE",
        "new_size": "VOL_NEW_SIZE",
        "exclusive": "VOL_OPEN_EXCLUSIVE",
        "snapshot": "VOL_SNAPSHOT_NAME",
        "metadata": "VOL_METADATA",
    }
    given = {names.get(key, f"EXTP_{key.upper()}"): str(value) for key, value in variables.items()}
    return {"VOL_NAME": volume, "EXTP_PROVIDER": "rados", **given}


def run_script(
    node: Machine,
    action: str,
    volume: str,
    ok: Collection[int] = (0,),
    /,
    **variables: str | int,
) -> Completed:
    """Run one of the provider's scripts as Ganeti does."""
    env = make_environment(volume, **variables)
    return node.run(f"{SCRIPTS}/{action}", env=env, ok=ok, timeout=_SCRIPT_SECONDS)


def list_volumes(ceph: Ceph, pool: str = POOL) -> set[str]:
    return set(json.loads(ceph.run("rbd", "ls", pool, "--format=json")))


def list_trash(ceph: Ceph, pool: str = POOL) -> set[str]:
    """Names of what is in the trash, for whatever reason."""
    listed = json.loads(ceph.run("rbd", "trash", "ls", "--all", pool, "--format=json"))
    return {each["name"] for each in listed}


def show_volume(ceph: Ceph, volume: str, pool: str = POOL) -> Mapping[str, Any]:
    """`rbd info` as JSON."""
    shown: Mapping[str, Any] = json.loads(
        ceph.run("rbd", "info", f"{pool}/{volume}", "--format=json")
    )
    return shown


def find_in_trash(ceph: Ceph, name: str, pool: str = POOL) -> str:
    """The id of the one image of this name in the trash."""
    listed = json.loads(ceph.run("rbd", "trash", "ls", "--all", pool, "--format=json"))
    (found,) = (each["id"] for each in listed if each["name"] == name)
    return str(found)


def list_watchers(ceph: Ceph, volume: str, pool: str = POOL) -> list[str]:
    """The addresses of the clients that have an image open, as Ceph believes."""
    told = json.loads(ceph.run("rbd", "status", f"{pool}/{volume}", "--format=json"))
    return [each["address"] for each in told["watchers"]]


@contextlib.contextmanager
def instance(cluster: Cluster, name: str, *disk: str) -> Iterator[str]:
    """An instance with one disk of our provider, off; removed after the block."""
    options = ",".join(("0:provider=rados", *disk))
    cluster.add_instance(
        name,
        "--os-type=blank",
        "--disk-template=ext",
        f"--disk={options}",
        "--no-start",
        "--no-nics",
    )
    try:
        yield name
    finally:
        cluster.remove_instance(name)


def find_volume(cluster: Cluster, name: str) -> str:
    """The volume of an instance's only disk, from Ganeti's configuration."""
    config = json.loads(cluster.node.read("/var/lib/ganeti/config.data"))
    (found,) = (each for each in config["instances"].values() if each["name"] == name)
    return str(config["disks"][found["disks"][0]]["logical_id"][1])


def find_device(node: Machine, volume: str) -> str:
    return run_script(node, "attach", volume).text.strip()


def hash_device(node: Machine, device: str) -> str:
    direct = f"dd if={device} bs=1M iflag=direct status=none | sha256sum"
    return node.run("sh", "-c", direct, timeout=300).text.split()[0]


def read_size(node: Machine, device: str) -> int:
    return int(node.run("blockdev", "--getsize64", device).text)


def find_workers(machine: Machine, volume: str, role: str = "worker") -> list[int]:
    """The processes of an export, as the machine's own ids."""
    pattern = f"ext_storage_rados.export.{role} .*{volume}"
    return [int(word) for word in machine.run("pgrep", "-f", pattern, ok=(0, 1)).text.split()]


def write_pattern(node: Machine, device: str, size: int = 4 * MEBIBYTE) -> str:
    """Fill the device's beginning with what it did not hold; gives its hash."""
    content = random.Random(time.monotonic_ns()).randbytes(size)
    node.run("dd", f"of={device}", "bs=1M", "oflag=direct", "conv=notrunc,fsync", stdin=content)
    return hash_device(node, device)
