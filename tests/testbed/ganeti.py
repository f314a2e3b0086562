"""A Ganeti cluster on a bed's nodes; its guests are emulated, never run under KVM."""

import json
from dataclasses import dataclass
from pathlib import Path

from testbed.bed import DOMAIN, Bed
from testbed.machine import Machine
from testbed.wire import ADDRESS, NETWORK, NODE_BRIDGE

NAME = f"cluster.{DOMAIN}"
NETWORK_NAME = "testnet"
FILE_STORAGE = "/srv/ganeti/file-storage"
SHARED_FILE_STORAGE = "/srv/ganeti/shared-file-storage"
TEMPLATES = ("file", "sharedfile", "ext", "diskless")

_BOUNDS = {
    "min": "cpu-count=1,disk-count=0,disk-size=1,memory-size=16,nic-count=0,spindle-use=1",
    "max": "cpu-count=8,disk-count=16,disk-size=1048576,memory-size=32768,nic-count=8,"
    "spindle-use=12",
}
_KVM = {
    "kvm_flag": "disabled",
    # kvm_flag adds no option, and QEMU called as `kvm` takes KVM by itself.
    "kvm_path": "/usr/bin/qemu-system-x86_64",
    "kernel_path": "",
    "initrd_path": "",
    "serial_console": "true",
    "vnc_bind_address": "0.0.0.0",
    "vhost_net": "false",
}
_BLANK_OS = {
    "ganeti_api_version": "20\n",
    "parameters.list": "",
    **dict.fromkeys(("create", "import", "export", "rename", "verify"), "#!/bin/sh\nexit 0\n"),
}
# This machine's kernel may lack /proc/sysrq-trigger, which `verify` takes for a lack of /proc.
_VERIFY = ("gnt-cluster", "verify", "--ignore-errors=ENODESETUP")


@dataclass(frozen=True)
class Cluster:
    """node: the master. Commands print text and raise CommandError when they fail."""

    bed: Bed
    node: Machine

    def run(self, *argv: str, timeout: float = 300) -> str:
        """Run a command on the master; gives what it printed."""
        return self.node.run(*argv, timeout=timeout).text

    def verify(self) -> str:
        return self.run(*_VERIFY)

    def add_instance(self, name: str, *options: str, timeout: float = 900) -> str:
        """`gnt-instance add` on the master, without checks of names that no DNS knows."""
        return self.run(*make_add_argv(name, self.node.hostname, options), timeout=timeout)

    def remove_instance(self, name: str) -> None:
        """Remove an instance, running or not, without waiting for its guest to shut down."""
        self.run("gnt-instance", "remove", "--force", "--shutdown-timeout=0", name)


def create_cluster(bed: Bed) -> Cluster:
    """A cluster of node 1 alone, powered on here, with network `testnet` on its bridge."""
    node = _power_on(bed, 1)
    cluster = Cluster(bed, node)
    cluster.run(*make_init_argv())
    network = (f"--network={NETWORK}", f"--gateway={ADDRESS}")
    cluster.run("gnt-network", "add", *network, NETWORK_NAME)
    nic = f"--nic-parameters=mode=bridged,link={NODE_BRIDGE}"
    cluster.run("gnt-network", "connect", nic, NETWORK_NAME)
    return cluster


def add_node(cluster: Cluster, index: int) -> Machine:
    """Power on another node, 2 to 9, and have it join: a master candidate, like the first."""
    node = _power_on(cluster.bed, index)
    keys = cluster.run("sh", "-c", "cat /root/.ssh/id_*.pub")
    node.write("/root/.ssh/authorized_keys", keys, mode=0o600)
    cluster.run("gnt-node", "add", "--no-ssh-key-check", node.hostname)
    return node


def write_blank_os(node: Machine, name: str) -> None:
    """Give a node an OS definition that does nothing to an instance's disk."""
    for script, content in _BLANK_OS.items():
        node.write(f"/usr/share/ganeti/os/{name}/{script}", content, mode=0o755)


def fail_over_master(cluster: Cluster, index: int) -> Cluster:
    """Make another node the master, as when the old one is lost; gives the cluster with it."""
    node = cluster.bed.node(index)
    node.run("gnt-cluster", "master-failover", timeout=600)
    return Cluster(cluster.bed, node)


def find_cluster(bed: Bed) -> Cluster:
    """The cluster of a bed that was left running."""
    return Cluster(bed, bed.node(1))


def find_disk(cluster: Cluster, instance: str, index: int = 0) -> Path:
    """Where the file of a disk (template `file`) of the master's lies, seen from outside."""
    config = json.loads(cluster.node.read("/var/lib/ganeti/config.data"))
    (uuids,) = (each["disks"] for each in config["instances"].values() if each["name"] == instance)
    path: str = config["disks"][uuids[index]]["logical_id"][1]
    return cluster.node.upper / path.lstrip("/")


def _power_on(bed: Bed, index: int) -> Machine:
    """A node with what Ganeti expects of it before it joins a cluster."""
    node = bed.power_on_node(index)
    node.run("mkdir", "--parents", FILE_STORAGE, SHARED_FILE_STORAGE)
    node.write("/etc/ganeti/file-storage-paths", f"{FILE_STORAGE}\n{SHARED_FILE_STORAGE}\n")
    node.run("mkdir", "--parents", "--mode=700", "/root/.ssh")
    return node


def make_init_argv() -> list[str]:
    hypervisor = ",".join(f"{key}={value}" for key, value in _KVM.items())
    bounds = "/".join(f"{edge}:{values}" for edge, values in _BOUNDS.items())
    return [
        *("gnt-cluster", "init"),
        f"--master-netdev={NODE_BRIDGE}",
        "--no-etc-hosts",
        "--enabled-hypervisors=kvm",
        f"--enabled-disk-templates={','.join(TEMPLATES)}",
        f"--file-storage-dir={FILE_STORAGE}",
        f"--shared-file-storage-dir={SHARED_FILE_STORAGE}",
        f"--ipolicy-bounds-specs={bounds}",
        f"--nic-parameters=mode=bridged,link={NODE_BRIDGE}",
        "--backend-parameters=minmem=64,maxmem=64,vcpus=1",
        f"--hypervisor-parameters=kvm:{hypervisor}",
        NAME,
    ]


def make_add_argv(name: str, node: str, options: tuple[str, ...]) -> list[str]:
    checks = ("--no-name-check", "--no-ip-check", f"--node={node}")
    return ["gnt-instance", "add", *checks, *options, name]
