"""A guest that draws on a node, proxies before it, and a browser on the wire; all of them real."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snf_ganeti import process
from testbed.browser import Browser, open_browser
from testbed.console import Proxy, install_files, prepare_rapi, running_proxy
from testbed.console_client import open_console, paint, wait_for_colour
from testbed.deadline import wait_for
from testbed.drawing import COLOURS, GREEN
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.namespaces import make_enter_network_argv
from testbed.rfb_client import RfbClient
from testbed.vnc_servers import (
    KEYS,
    NODE_ADDRESS,
    NODE_NAME,
    PKI,
    SOCKET_FOLDER,
    make_certificates,
    running_guest,
)
from testbed.wire import ADDRESS

SECONDS = 120.0


SETTINGS = f"""
[targets]
networks = ["127.0.0.0/8", "10.78.0.0/24"]
ports = "1024-65535"
unix_directories = ["{SOCKET_FOLDER}"]
"""
CHECKED = f"""
ca = "{PKI}/ca-cert.pem"
certificate = "/srv/checked/client-cert.pem"
key = "/srv/checked/client-key.pem"
[tickets]
redis = "redis://{ADDRESS}:6390"
[ganeti]
rapi = "https://localhost:5080"
ca = "/srv/checked/rapi.pem"
user = "reader"
password_file = "/srv/checked/rapi-password"
"""
SHARING = f"""
[tickets]
redis = "redis://{ADDRESS}:6390"
[limits]
handshake = 4.0
stalled = 6.0
drain = 2.0
sessions_per_user = 5
handshakes_per_address = 64
[legacy]
enabled = true
address = "::"
users = "/srv/sharing/users"
ports = "25000-25009"
connect_timeout = 60.0
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("console")
    make_certificates(made)
    return made


@pytest.fixture(scope="session")
def node(cluster: Cluster, folder: Path) -> Iterator[Machine]:
    """A node with the guest that draws."""
    install_files(cluster.node, folder)
    with running_guest(cluster.node, folder / "qemu.log"):
        yield cluster.node


@pytest.fixture(scope="session")
def redis(cluster: Cluster, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = ["redis-server", "--bind", ADDRESS, "--port", "6390", "--save", "", "--dir", str(folder)]
    argv += ["--protected-mode", "no"]
    with cluster.bed.wire.spawn(argv, folder / "redis.log") as child:

        def answers() -> bool:
            with contextlib.suppress(OSError), cluster.bed.wire.connect(ADDRESS, 6390) as asked:
                asked.sendall(b"PING\r\n")
                return asked.recv(7) == b"+PONG\r\n"
            return False

        wait_for("Redis", answers, SECONDS)
        yield child


@pytest.fixture
def ask_redis(cluster: Cluster, redis: object) -> Callable[..., list[str]]:
    """Gives the words of Redis's answer to a command."""

    def ask(*command: str) -> list[str]:
        argv = ["redis-cli", "-h", ADDRESS, "-p", "6390", *command]
        network = cluster.bed.wire.machine.pid
        return process.run(make_enter_network_argv(network, argv)).text.split()

    return ask


@pytest.fixture(scope="session")
def checked(cluster: Cluster, node: Machine, redis: object, folder: Path) -> Iterator[Proxy]:
    """A proxy that checks certificates of VNC servers, and knows the cluster."""
    for file in ("cert", "key"):
        node.write(f"/srv/checked/client-{file}.pem", (folder / f"client-{file}.pem").read_bytes())
    prepare_rapi(node, "/srv/checked")
    with running_proxy(
        node, cluster.bed.wire.connect, folder, "checked", 8443, SETTINGS + CHECKED
    ) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def sharing(cluster: Cluster, node: Machine, redis: object, folder: Path) -> Iterator[Proxy]:
    """A proxy that shares the other's tickets, takes TLS without certificates, has short
    limits, and speaks the legacy protocol."""
    node.write("/srv/sharing/users", "")
    node.run("vncauthproxy-passwd", "/srv/sharing/users", "synnefo", stdin=b"user-secret\n")
    with running_proxy(
        node, cluster.bed.wire.connect, folder, "sharing", 8444, SETTINGS + SHARING
    ) as proxy:
        yield proxy


@pytest.fixture
def green(sharing: Proxy) -> None:
    """The guest shows green."""
    client = open_console(sharing, sharing.order())
    if client.read_colour() == (0, 0, 0):  # it boots
        wait_for_colour(client, GREEN)
    else:
        paint(client, "b")
    client.connection.close()


@pytest.fixture
def is_deaf_to(sharing: Proxy, node: Machine) -> Callable[[RfbClient], bool]:
    """Tells whether the guest hears no key of a client, which sees what others do all the same.
    What a client sent before a question has arrived when it is answered, and the guest takes
    keys in their order. It shows blue then."""

    def probe(client: RfbClient) -> bool:
        before = len(node.read(KEYS))
        client.press("d")
        client.read_colour()
        other = open_console(sharing, sharing.order())
        other.press("a")
        wait_for("its key", lambda: b"a" in node.read(KEYS)[before:], SECONDS)
        other.connection.close()
        wait_for_colour(client, COLOURS["a"])
        return b"d" not in node.read(KEYS)[before:]

    return probe


@pytest.fixture(scope="session")
def browser(cluster: Cluster, folder: Path) -> Iterator[Browser]:
    network, hosts = cluster.bed.wire.machine.pid, {NODE_NAME: NODE_ADDRESS}
    with open_browser(folder / "chromium.log", network=network, hosts=hosts) as opened:
        yield opened
