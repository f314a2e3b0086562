"""A Ceph cluster in a machine on the wire: a monitor, a manager and OSDs kept in files.

The daemons start as Ceph's manual deployment has it, without systemd, and keep one copy of
the data. Nodes reach them at ADDRESS with the configuration and keys that are made here.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.machine import Machine

ADDRESS = "10.78.0.20"
PACKAGES = ("ceph-common", "ceph-mgr", "ceph-mon", "ceph-osd")
OSD_SIZE = 8 << 30
"""Bytes; a sparse file."""
CONFIG = "/etc/ceph/ceph.conf"
ADMIN = "client.admin"

_MON, _MGR = "a", "x"
_KEYRING = "/etc/ceph/ceph.client.admin.keyring"
_START_SECONDS = 120.0
_ADMIN_CAPS = {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"}
_MGR_CAPS = {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"}
_REPORTS = (
    *("mgr stats period", "mgr tick period", "mon mgr digest period", "mon tick interval"),
    "osd mon report interval",
)
_SERVERS = {
    "public addr": ADDRESS,
    "cluster addr": ADDRESS,
    "auth allow insecure global id reclaim": "false",
    "osd pool default size": "1",
    "osd pool default min size": "1",
    "osd pool default pg num": "8",
    "osd pool default pg autoscale mode": "off",
    "osd crush chooseleaf type": "0",
    "mon allow pool size one": "true",
    "mon allow pool delete": "true",
    "mon warn on pool no redundancy": "false",
    "mon data avail warn": "1",
    "mon data avail crit": "0",
    "paxos propose interval": "0.05",  # commands are answered as soon as they are decided
    **dict.fromkeys(_REPORTS, "1"),  # the monitors know soon what the OSDs do
    "osd objectstore": "bluestore",
    "osd memory target": "939524096",  # the least that is accepted
}


@dataclass(frozen=True)
class Ceph:
    """A running cluster; machine: where its daemons and administrator's tools are."""

    machine: Machine
    fsid: str

    def run(self, *argv: str, timeout: float = 60, stdin: bytes = b"") -> str:
        """`ceph`, `rbd`, `rados` … as the administrator; gives what it printed."""
        return self.machine.run(*argv, timeout=timeout, stdin=stdin).text

    def make_config(self) -> str:
        """What a client needs as its ceph.conf."""
        return make_config(self.fsid)

    def read_keyring(self, entity: str) -> str:
        """The keyring of a client such as `client.admin`."""
        return self.run("ceph", "auth", "get", entity)

    def create_pool(self, name: str) -> None:
        self.run("ceph", "osd", "pool", "create", name, "8", "8")
        self.run("rbd", "pool", "init", name)

    def install_client(self, node: Machine, *entities: str) -> None:
        """Give a node the configuration and the keyrings of these clients."""
        node.write(CONFIG, self.make_config())
        for entity in entities:
            path = f"/etc/ceph/ceph.{entity}.keyring"
            node.write(path, self.read_keyring(entity), mode=0o600)

    def start_osd(self, index: int) -> None:
        """Start an OSD and wait until the monitor knows that it is up."""
        self.machine.run("ceph-osd", "--id", str(index))
        wait_for(f"osd.{index} up", lambda: index in self.find_osds_up(), _START_SECONDS)

    def stop_osd(self, index: int) -> None:
        """Kill an OSD, and wait until the monitor knows that it is down."""
        self.machine.run("pkill", "--signal=KILL", "--full", f"^ceph-osd --id {index}$")
        self.run("ceph", "osd", "down", str(index))
        wait_for(f"osd.{index} down", lambda: index not in self.find_osds_up(), _START_SECONDS)

    def find_osds_up(self) -> set[int]:
        listed = json.loads(self.run("ceph", "osd", "dump", "--format=json"))
        return {osd["osd"] for osd in listed["osds"] if osd["up"]}


def start_ceph(bed: Bed, *, osds: int = 1, osd_size: int = OSD_SIZE) -> Ceph:
    """Start a new cluster in a machine of the bed; it ends with the bed. osd_size: bytes."""
    machine = bed.make_machine("ceph", PACKAGES)
    machine.power_on()
    bed.wire.plug(machine, ADDRESS)
    ceph = Ceph(machine, str(uuid.uuid4()))
    settings = {**_SERVERS, "bluestore block size": str(osd_size)}
    servers = "".join(f"{key} = {value}\n" for key, value in settings.items())
    machine.write(CONFIG, ceph.make_config() + servers)
    _start_monitor(ceph)
    _start_manager(ceph)
    for index in range(osds):
        _make_osd(ceph, index)
        ceph.start_osd(index)
    return ceph


def make_config(fsid: str) -> str:
    lines = {
        "fsid": fsid,
        "mon host": f"[v2:{ADDRESS}:3300,v1:{ADDRESS}:6789]",
        "auth cluster required": "cephx",
        "auth service required": "cephx",
        "auth client required": "cephx",
    }
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


def make_caps(caps: Mapping[str, str], *, separator: str = "") -> Sequence[str]:
    """Capabilities as words of a command: `ceph auth add` wants none between service and cap,
    ceph-authtool `--cap` before each."""
    prefix = (separator,) if separator else ()
    return [word for item in caps.items() for word in (*prefix, *item)]


def _start_monitor(ceph: Ceph) -> None:
    machine, data = ceph.machine, f"/var/lib/ceph/mon/ceph-{_MON}"
    keys, monmap = "/etc/ceph/mon.keyring", "/etc/ceph/monmap"
    tool = ("ceph-authtool", "--gen-key", "--create-keyring")
    machine.run(*tool, keys, "--name=mon.", "--cap", "mon", "allow *")
    caps = make_caps(_ADMIN_CAPS, separator="--cap")
    machine.run(*tool, _KEYRING, f"--name={ADMIN}", *caps)
    machine.run("ceph-authtool", keys, "--import-keyring", _KEYRING)
    addresses = f"[v2:{ADDRESS}:3300,v1:{ADDRESS}:6789]"
    machine.run(*("monmaptool", "--create", "--fsid", ceph.fsid, "--addv", _MON, addresses, monmap))
    machine.run("mkdir", "--parents", data)
    machine.run("ceph-mon", "--mkfs", "--id", _MON, "--monmap", monmap, "--keyring", keys)
    machine.run("ceph-mon", "--id", _MON)


def _start_manager(ceph: Ceph) -> None:
    name, data = f"mgr.{_MGR}", f"/var/lib/ceph/mgr/ceph-{_MGR}"
    ceph.machine.run("mkdir", "--parents", data)
    keyring = ceph.run("ceph", "auth", "get-or-create", name, *make_caps(_MGR_CAPS))
    ceph.machine.write(f"{data}/keyring", keyring, mode=0o600)
    ceph.machine.run("ceph-mgr", "--id", _MGR)


def _make_osd(ceph: Ceph, index: int) -> None:
    machine, data = ceph.machine, f"/var/lib/ceph/osd/ceph-{index}"
    machine.run("mkdir", "--parents", data)
    identity = str(uuid.uuid4())
    key = machine.run("ceph-authtool", "--gen-print-key").text.strip()
    secret = json.dumps({"cephx_secret": key}).encode()
    ceph.run("ceph", "osd", "new", identity, str(index), "--in-file=-", stdin=secret)
    machine.write(f"{data}/keyring", f"[osd.{index}]\nkey = {key}\n", mode=0o600)
    machine.run("ceph-osd", "--id", str(index), "--mkfs", "--osd-uuid", identity)
