"""What a node lacks, or refuses: a NIC is closed rather than open, and operators are told."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_ganeti_eventd.jobs.inotify import CLOSE_WRITE, MOVED_TO, Inotify
from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.hosting import SOCKET, Hosting, NicWords, open_hosting

SECONDS = 30.0
PROFILE_SECONDS, TEARDOWN_SECONDS = 10.0, 5.0
STATE = "/run/snf-ganeti-hooks"
DNSMASQ = "/usr/sbin/dnsmasq"
SETTINGS = 'nfdhcpd_dir = "/var/lib/nfdhcpd"\n[dhcp]\nmtu = 1400\n'
WORDS = {
    "MODE": "routed",
    "IP": "198.51.100.7",
    "NETWORK_NAME": "public",
    "NETWORK_SUBNET": "198.51.100.0/24",
    "NETWORK_GATEWAY": "198.51.100.1",
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": "2001:db8:1::1",
    "NETWORK_TAGS": "ip-less-routed nfdhcpd",
}
NIC = NicWords("tap0", "aa:00:00:00:00:10", WORDS)
OTHER = NicWords("tap1", "aa:00:00:00:00:11", {**WORDS, "IP": "198.51.100.8"})
BINDING = """\
INDEV=tap0
IP=198.51.100.7
MAC=aa:00:00:00:00:10
HOSTNAME=instance-of-tap0
TAGS=ip-less-routed nfdhcpd
GATEWAY=198.51.100.1
SUBNET=198.51.100.0/24
GATEWAY6=2001:db8:1::1
SUBNET6=2001:db8:1::/64
EUI64=2001:db8:1:0:a800:ff:fe00:10
MTU=1400
"""


@pytest.fixture(scope="module")
def log(hosting: Hosting) -> Path:
    """The service's."""
    return hosting.node.folder / "serve.log"


@pytest.fixture(scope="module")
def hosting(bed: Bed) -> Iterator[Hosting]:
    """A node with the service and one NIC."""
    with open_hosting(bed.folder / "trouble", bed.layers) as opened:
        opened.node.write("/etc/snf-ganeti-hooks/conf.d/site.toml", SETTINGS)
        with opened.serve():
            opened.add_guest(NIC)
            yield opened


def read_notes(hosting: Hosting) -> dict[str, tuple[str, str]]:
    """Tap → profile, note."""
    rows = json.loads(hosting.node.run("snf-network", "show", "--json").text)
    return {row["tap"]: (row["profile"], row["note"]) for row in rows}


@contextlib.contextmanager
def moved_away(hosting: Hosting, path: str) -> Iterator[None]:
    hosting.node.run("mv", path, f"{path}.away")
    try:
        yield
    finally:
        hosting.node.run("mv", f"{path}.away", path)


def is_up(hosting: Hosting, interface: str) -> bool:
    (found,) = json.loads(hosting.node.run("ip", "-json", "link", "show", interface).text)
    return "UP" in found["flags"]


def refuse(hosting: Hosting, reason: str) -> None:
    """A NIC is not set up: its start fails in one line, and it is down and left nowhere."""
    hosting.ip("link add tap1 type veth peer name far1")
    try:
        failed = hosting.set_up(OTHER, ok=(4,))
        (line,) = failed.stderr.strip().splitlines()
        assert reason in line
        assert not is_up(hosting, "tap1")
        assert hosting.node.run("ls", f"{STATE}/nics").text.split() == ["tap0.json"]
        assert "198.51.100.8" not in hosting.node.run("ip", "route", "show", "table", "all").text
    finally:
        hosting.ip("link del tap1")


def test_without_nftables_no_nic_is_set_up(hosting: Hosting) -> None:
    """By its script: the service has the library already, and goes on with it."""
    library = hosting.node.run("sh", "-c", "ls /usr/lib/*/libnftables.so.1").text.strip()
    with moved_away(hosting, library), moved_away(hosting, SOCKET):
        refuse(hosting, "nftables can't be used")
        profile, note = read_notes(hosting)["tap0"]
        assert "nftables can't be used" in note
        assert profile == "unprotected"
    well = {"tap0": ("unprotected", "")}  # dnsmasq needs that library, too, and comes back
    wait_for("its end", lambda: read_notes(hosting) == well, SECONDS)


@contextlib.contextmanager
def refusing_nftables(hosting: Hosting, bed: Bed) -> Iterator[None]:
    """Somebody else has a table of ours, and the kernel lets nobody change it (EPERM)."""
    node = hosting.node
    node.run("nft", "delete", "table", "inet", "snf")
    script = "{ echo 'add table inet snf { flags owner; }'; sleep 600; } | nft -i"
    with node.spawn("sh", "-c", script, output=bed.folder / "trouble-owner.log"):
        wait_for("the other's table", lambda: "owner" in list_tables(hosting), SECONDS)
        yield
    wait_for("the end of it", lambda: "owner" not in list_tables(hosting), SECONDS)


def list_tables(hosting: Hosting) -> str:
    return hosting.node.run("nft", "list", "ruleset", ok=(0, 1)).text


def write_tags(hosting: Hosting, *tags: str) -> None:
    """As the master's service brings them."""
    text = json.dumps({"instance-of-tap0": tags})
    command = f"echo '{text}' >{STATE}/draft && mv {STATE}/draft {STATE}/tags.json"
    hosting.node.run("sh", "-c", command)


def test_a_profile_that_nftables_refuses_is_told_and_comes_later(
    hosting: Hosting, bed: Bed, log: Path
) -> None:
    with refusing_nftables(hosting, bed):
        refuse(hosting, "nftables refused")
        said = log.read_text()
        write_tags(hosting, "synnefo:network:0:protected")
        wait_for(
            "a line in the log",
            lambda: "profiles: nftables refused" in log.read_text()[len(said) :],
            PROFILE_SECONDS,
        )
        _, note = read_notes(hosting)["tap0"]
        assert "profile protected is not in force yet" in note
        # Nothing leads to the guest now, so nothing is open either; it is said once.
        assert log.read_text()[len(said) :].count("profiles: nftables refused") == 1
    wait_for(
        "the profile", lambda: read_notes(hosting) == {"tap0": ("protected", "")}, PROFILE_SECONDS
    )
    shown = hosting.node.run("nft", "list", "set", "inet", "snf", "profile-protected").text
    assert '"tap0"' in shown


def test_without_dnsmasq_nics_are_set_up_and_operators_told(hosting: Hosting, log: Path) -> None:
    said = log.read_text()
    with moved_away(hosting, DNSMASQ):
        hosting.node.run("pkill", "-9", "-x", "dnsmasq")
        hosting.add_guest(OTHER)
        wait_for(
            "a note",
            lambda: all("dnsmasq" in note for _, note in read_notes(hosting).values()),
            SECONDS,
        )
        assert is_up(hosting, "tap1")
        new = log.read_text()[len(said) :]
        assert new.count("no addresses are given") <= 2  # that it ended, that it can't start
    wait_for("dnsmasq", lambda: not any(note for _, note in read_notes(hosting).values()), SECONDS)
    hosting.node.run("pidof", "dnsmasq")
    hosting.ip("link del tap1")


SILENT_GANETI = """
import os, socket
path = "/run/ganeti/socket/ganeti-query"
os.makedirs(os.path.dirname(path), exist_ok=True)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(path)
    listener.listen()
    kept = []
    while True:
        kept.append(listener.accept())
        print("asked", flush=True)
"""


def test_ganeti_that_does_not_answer_delays_no_teardown(hosting: Hosting, bed: Bed) -> None:
    """As on a master whose query daemon hangs, or that can't reach a node that gets tags."""
    node, log = hosting.node, bed.folder / "trouble-ganeti.log"
    hostname = node.run("python3", "-c", "import socket; print(socket.getfqdn())").text
    master = "/var/lib/ganeti/ssconf_master_node"
    hosting.add_guest(OTHER)
    with node.spawn("python3", "-c", SILENT_GANETI, output=log):
        node.write(master, hostname)
        wait_for("a question to Ganeti", lambda: "asked" in log.read_text(), SECONDS)
        hosting.ip("link del tap1")
        wait_for("its end", lambda: list(read_notes(hosting)) == ["tap0"], TEARDOWN_SECONDS)
        node.run("rm", master)


def test_binding_file_of_the_predecessor(hosting: Hosting) -> None:
    """nfdhcpd sees a file that is closed after writing, and not one that is renamed."""
    node, folder = hosting.node, "/var/lib/nfdhcpd"
    assert node.run("cat", f"{folder}/tap0").text == BINDING
    watched = Path(f"/proc/{node.pid}/root{folder}")
    with Inotify() as notices:
        notices.add(watched, CLOSE_WRITE | MOVED_TO)
        hosting.set_up(NIC)
        assert {(each.mask, each.name) for each in notices.read()} == {(CLOSE_WRITE, "tap0")}
    assert node.run("cat", f"{folder}/tap0").text == BINDING
    hosting.ip("link del tap0")
    wait_for("its end", lambda: not node.run("ls", folder).text, TEARDOWN_SECONDS)
