"""A bed: one wire and the machines on it, under a name, with its state in build/bed/NAME."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from snf_ganeti.errors import NodeError
from testbed import leftovers
from testbed.deadline import wait_for
from testbed.machine import Bind, Machine
from testbed.roots import BUILD, RESOLVER, build_base, build_layers, build_root_with
from testbed.wire import ADDRESS, Wire

BEDS = BUILD / "bed"
DOMAIN = "bed.test"
CLUSTER_ADDRESS = "10.78.0.100"
_NODES = range(1, 10)
_SSHD = "/run/sshd.pid"
_SECONDS = 60.0
_RECORD = "bed.json"


@dataclass(frozen=True)
class Bed:
    """What a bed is made of; whether its machines are on is asked of the kernel.

    layers: of every machine's root, top first. binds: what every node sees of this machine.
    """

    name: str
    layers: tuple[Path, ...]
    binds: tuple[Bind, ...] = ()

    @property
    def folder(self) -> Path:
        return BEDS / self.name

    @property
    def wire(self) -> Wire:
        return Wire(Machine("wire", self.folder / "wire", self.layers))

    def node(self, index: int) -> Machine:
        """Node 1 to 9; it may be off."""
        hostname = f"node{index}.{DOMAIN}"
        return Machine(hostname, self.folder / f"node{index}", self.layers, self.binds)

    def power_on_node(self, index: int) -> Machine:
        """Power a node on and plug it in; SSH and its Ganeti daemons come up with it."""
        node = self.node(index)
        node.power_on()
        self.wire.plug(node, make_node_address(index))
        node.write("/etc/hosts", make_hosts())
        node.write("/etc/hostname", node.hostname + "\n")
        node.run("/usr/sbin/sshd")  # it listens, and says so in its file, when this has returned
        wait_for("sshd", lambda: not node.run("test", "-e", _SSHD, ok=(0, 1)).status, _SECONDS)
        return node

    def make_machine(self, name: str, packages: Sequence[str]) -> Machine:
        """A machine beside the nodes, with further packages of Debian in its root; it is off."""
        layers = build_root_with(self.layers[-1], packages)
        return Machine(f"{name}.{DOMAIN}", self.folder / name, layers)

    def build_machine(self, name: str, binds: Sequence[Bind] = ()) -> Machine:
        """A machine with the same root on this machine's network, to build things in; off."""
        folder = self.folder / name
        return Machine(name, folder, self.layers, (RESOLVER, *binds), shares_network=True)


@contextlib.contextmanager
def open_bed(
    name: str,
    *,
    suite: str = "bookworm",
    debs: Sequence[Path] = (),
    binds: Sequence[Bind] = (),
    keep: bool = False,
) -> Iterator[Bed]:
    """A bed with its wire up and no nodes yet, gone at the end of the block.

    keep: a block that ends well leaves the bed running, for `find_bed` and `close_bed`.
    Raises LockError when a bed of that name runs.
    """
    leftovers.sweep(BEDS)
    bed = Bed(name, build_layers(build_base(suite), debs), tuple(binds))
    if leftovers.is_kept(bed.folder):
        raise NodeError(f"bed {name} is up already", hint="take it down first")
    with leftovers.own(bed.folder), contextlib.ExitStack() as stack:
        stack.callback(leftovers.remove, bed.folder)
        bed.folder.mkdir()
        (bed.folder / _RECORD).write_text(_format_record(bed))
        bed.wire.power_on()
        yield bed
        if keep:
            (bed.folder / leftovers.KEPT).touch()
            stack.pop_all()


def find_bed(name: str) -> Bed:
    """A bed that another process left running. Raises NodeError when there is none."""
    folder = BEDS / name
    if not leftovers.is_kept(folder):
        raise NodeError(f"no bed {name} is up", hint=f"its folder would be {folder}")
    return _parse_record((folder / _RECORD).read_text())


def close_bed(name: str) -> None:
    """Take down a bed that was left running, by whichever process; nothing if there is none."""
    folder = BEDS / name
    with leftovers.own(folder):
        leftovers.remove(folder)


def make_node_address(index: int) -> str:
    return f"10.78.0.{10 + index}"


def make_hosts() -> str:
    """/etc/hosts of every node."""
    names = {
        "127.0.0.1": "localhost",
        ADDRESS: f"wire.{DOMAIN} wire",
        CLUSTER_ADDRESS: f"cluster.{DOMAIN} cluster",
        **{make_node_address(index): f"node{index}.{DOMAIN} node{index}" for index in _NODES},
    }
    return "".join(f"{address}\t{words}\n" for address, words in names.items())


def _format_record(bed: Bed) -> str:
    return json.dumps(asdict(bed), default=str, indent=2) + "\n"


def _parse_record(text: str) -> Bed:
    record = json.loads(text)
    binds = (Bind(Path(each.pop("source")), **each) for each in record["binds"])
    return Bed(record["name"], tuple(map(Path, record["layers"])), tuple(binds))
