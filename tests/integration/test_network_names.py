"""Names of instances in a real name server: BIND, which takes updates with a TSIG key only."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dns.message
import dns.query
import dns.reversename
import pytest

from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.hosting import Hosting, open_hosting
from testbed.namespaces import call_in_network, make_enter_network_argv

HOOK = "/etc/ganeti/hooks/instance-add-post.d/snf-ganeti-hooks"
SERVER = "127.0.0.1"
PORT = 5353
SECONDS = 90.0
ZONES = ("cloud.example", "100.51.198.in-addr.arpa", "0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa")
ADDRESS6 = "2001:db8:1:0:a800:1ff:fe00:7"
NIC = {
    "GANETI_INSTANCE_NIC_COUNT": "1",
    "GANETI_INSTANCE_NIC0_MAC": "aa:00:01:00:00:07",
    "GANETI_INSTANCE_NIC0_IP": "198.51.100.7",
    "GANETI_INSTANCE_NIC0_NETWORK_TAGS": "nfdhcpd dns",
    "GANETI_INSTANCE_NIC0_NETWORK_SUBNET6": "2001:db8:1::/64",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BIND's files: three zones and a key."""
    made = tmp_path_factory.mktemp("bind")
    key = subprocess.run(["tsig-keygen", "hosts"], check=True, capture_output=True, text=True)
    (made / "key").write_text(key.stdout)
    text = (
        f'{key.stdout}\noptions {{ directory "{made}"; listen-on port {PORT} {{ {SERVER}; }};'
        f' listen-on-v6 {{ none; }}; pid-file "{made}/pid"; recursion no; session-keyfile none;'
        f' dnssec-validation no; managed-keys-directory "{made}"; }};\ncontrols {{ }};\n'
    )
    for zone in ZONES:
        (made / zone).write_text(
            f"$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns.{ZONES[0]}.\n"
            + ("ns A 127.0.0.1\n" if zone == ZONES[0] else "")
        )
        text += (
            f'zone "{zone}" {{ type primary; file "{zone}"; allow-update {{ key hosts; }}; }};\n'
        )
    (made / "named.conf").write_text(text)
    return made


@pytest.fixture(scope="module")
def hosting(bed: Bed, folder: Path) -> Iterator[Hosting]:
    with open_hosting(bed.folder / "names", bed.layers) as opened:
        reverse = json.dumps(list(ZONES[1:]))
        opened.node.write("/etc/snf-ganeti-hooks/dns.key", (folder / "key").read_text(), mode=0o600)
        opened.node.write(
            "/etc/snf-ganeti-hooks/conf.d/dns.toml",
            f'[dns]\nserver = "{SERVER}"\nport = {PORT}\nzone = "{ZONES[0]}"\n'
            f"reverse_zones = {reverse}\nttl = 60\n",
        )
        with opened.serve():
            yield opened


@contextlib.contextmanager
def serve(hosting: Hosting, folder: Path) -> Iterator[None]:
    """BIND in the node's network, with this machine's files."""
    argv = ["named", "-g", "-c", str(folder / "named.conf")]
    with (folder / "log").open("ab") as log:
        child = subprocess.Popen(
            make_enter_network_argv(hosting.node.pid, argv), stdout=log, stderr=log
        )
        try:
            wait_for("the name server", lambda: look_up(hosting, f"ns.{ZONES[0]}", "A"), SECONDS)
            yield
        finally:
            child.terminate()
            child.wait(60)


def look_up(hosting: Hosting, name: str, kind: str) -> set[str]:
    query = dns.message.make_query(name, kind)

    def ask() -> set[str]:
        try:
            answer = dns.query.tcp(query, SERVER, timeout=SECONDS, port=PORT)
        except (OSError, EOFError):  # it does not run, or not yet or no longer for this one
            return set()
        return {record.to_text() for rrset in answer.answer for record in rrset}

    return call_in_network(hosting.node.pid, ask)


def look_up_address(hosting: Hosting, address: str) -> set[str]:
    return look_up(hosting, dns.reversename.from_address(address).to_text(), "PTR")


def run_hook(hosting: Hosting, name: str, after: str = "add", **words: str) -> None:
    hostname = hosting.node.run("python3", "-c", "import socket; print(socket.getfqdn())").text
    environ = {
        "GANETI_HOOKS_PATH": f"instance-{after}",
        "GANETI_MASTER": hostname.strip(),
        "GANETI_INSTANCE_NAME": name,
        **NIC,
        **words,
    }
    hosting.node.run(HOOK, env=environ)


def expect(hosting: Hosting, name: str, ipv4: set[str], ipv6: set[str]) -> None:
    wait_for(
        f"the names of {name}",
        lambda: (look_up(hosting, name, "A"), look_up(hosting, name, "AAAA")) == (ipv4, ipv6),
        SECONDS,
        explain=lambda: str(look_up(hosting, name, "A")),
    )


def test_names_follow_an_instance(hosting: Hosting, folder: Path) -> None:
    old, new = f"web.{ZONES[0]}", f"www.{ZONES[0]}"
    with serve(hosting, folder):
        run_hook(hosting, old, GANETI_OP_CODE="OP_INSTANCE_CREATE")
        expect(hosting, old, {"198.51.100.7"}, {ADDRESS6})
        for address in ("198.51.100.7", ADDRESS6):
            wait_for("a pointer", partial(look_up_address, hosting, address), SECONDS)
            assert look_up_address(hosting, address) == {f"{old}."}

        modified = {name.replace("GANETI_", "GANETI_POST_"): value for name, value in NIC.items()}
        modified["GANETI_POST_INSTANCE_NIC0_IP"] = "198.51.100.8"
        run_hook(hosting, old, "modify", GANETI_OP_CODE="OP_INSTANCE_SET_PARAMS", **modified)
        expect(hosting, old, {"198.51.100.8"}, {ADDRESS6})
        wait_for("no pointer", lambda: not look_up_address(hosting, "198.51.100.7"), SECONDS)

        renamed = {"GANETI_OP_CODE": "OP_INSTANCE_RENAME", "GANETI_INSTANCE_NEW_NAME": new}
        run_hook(hosting, old, "rename", **renamed)
        expect(hosting, new, {"198.51.100.7"}, {ADDRESS6})
        expect(hosting, old, set(), set())
        wait_for("its pointer", lambda: look_up_address(hosting, ADDRESS6) == {f"{new}."}, SECONDS)

        run_hook(hosting, new, "remove", GANETI_OP_CODE="OP_INSTANCE_REMOVE")
        expect(hosting, new, set(), set())
        wait_for("no pointer", lambda: not look_up_address(hosting, ADDRESS6), SECONDS)


def test_dead_name_server_delays_a_name_and_no_job(hosting: Hosting, folder: Path) -> None:
    name = f"late.{ZONES[0]}"
    run_hook(hosting, name, GANETI_OP_CODE="OP_INSTANCE_CREATE")
    run_hook(hosting, "elsewhere.example", GANETI_OP_CODE="OP_INSTANCE_CREATE")
    log = Path(hosting.node.folder, "serve.log")
    wait_for("a second try", lambda: log.read_text().count(f"{name}: name server") >= 2, SECONDS)
    with serve(hosting, folder):
        expect(hosting, name, {"198.51.100.7"}, {ADDRESS6})
        queue = "/var/lib/snf-ganeti-hooks/dns"
        wait_for("an empty queue", lambda: not hosting.node.run("ls", queue).text, SECONDS)
    secret = (folder / "key").read_text().split('"')[3]
    assert secret not in log.read_text()


def test_only_the_master_acts(hosting: Hosting) -> None:
    run_hook(hosting, f"other.{ZONES[0]}", GANETI_MASTER="another.example")
    assert hosting.node.run("ls", "/var/lib/snf-ganeti-hooks/dns").text == ""
