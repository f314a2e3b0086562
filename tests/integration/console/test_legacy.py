"""The predecessor's protocol, as Synnefo speaks it, and its holes closed."""

import contextlib
import json

import pytest

from testbed.console import Proxy
from testbed.console_client import paint
from testbed.ganeti import Cluster
from testbed.legacy_client import CONTROL_PORT, Plain, ask_legacy, log_in, open_legacy
from testbed.machine import Machine
from testbed.vnc_servers import NODE_ADDRESS
from vncauthproxy.commands.client import request_forwarding

SECONDS = 120.0


def test_legacy_console_outlives_a_port_scan_and_a_wrong_password(
    cluster: Cluster, sharing: Proxy, green: None
) -> None:
    answer = ask_legacy(sharing)
    assert answer["status"] == "OK", answer
    assert set(answer) == {"source_port", "status", "proxy_address"}
    port = answer["source_port"]
    assert 25000 <= port <= 25009
    cluster.bed.wire.connect(NODE_ADDRESS, port).close()
    silent = cluster.bed.wire.connect(NODE_ADDRESS, port)
    stranger = Plain(cluster.bed.wire.connect(NODE_ADDRESS, port))
    assert log_in(stranger, "guessed") == b"\0\0\0\1"
    with open_legacy(sharing, port, "vnc") as owner:
        paint(owner, "d")
        with pytest.raises(OSError):
            cluster.bed.wire.connect(NODE_ADDRESS, port)
    silent.close()


@pytest.mark.parametrize("kind", ["vnc-ws", "vnc-wss"])
def test_legacy_console_in_a_websocket(sharing: Proxy, green: None, kind: str) -> None:
    answer = ask_legacy(sharing, type=kind)
    assert answer["status"] == "OK", answer
    with open_legacy(sharing, answer["source_port"], kind) as owner:
        paint(owner, "d")


def test_legacy_port_is_free_again_once_its_owner_is_in(sharing: Proxy, green: None) -> None:
    """It is asked for by its number, each time at once; while nobody came it is taken."""
    port = ask_legacy(sharing)["source_port"]
    for _ in range(20):
        with open_legacy(sharing, port, "vnc"):
            answer = ask_legacy(sharing, source_port=port)
            assert answer["source_port"] == port, answer
    assert ask_legacy(sharing, source_port=port)["reason"] == f"port {port} is taken"
    with open_legacy(sharing, port, "vnc"):
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"auth_password": "wrong"},
        {"auth_user": "nobody"},
        {"destination_address": "192.0.2.1"},
        {"destination_port": 22},
        {"source_port": 80},
        {"type": "spice"},
        {"password": ""},
    ],
)
def test_legacy_request_that_is_refused(
    cluster: Cluster, sharing: Proxy, changes: dict[str, object]
) -> None:
    answer = ask_legacy(sharing, **changes)
    assert (answer["status"], answer["source_port"]) == ("FAILED", 0)
    assert answer["proxy_address"] is None and answer["reason"]


def test_legacy_control_in_clear_is_for_the_machine_alone(
    cluster: Cluster, sharing: Proxy, node: Machine, green: None
) -> None:
    with cluster.bed.wire.connect(NODE_ADDRESS, CONTROL_PORT) as control:
        control.settimeout(SECONDS)
        control.sendall(b"{}")
        with contextlib.suppress(ConnectionResetError):
            assert control.recv(100) == b""
    node.write("/srv/secrets/console", "eightchr")
    node.write("/srv/secrets/user", "user-secret")
    argv = ("vncauthproxy-client", "--dest", "127.0.0.1", "--dport", "5901", "--auth-user")
    files = ("--password-file", "/srv/secrets/console", "--auth-password-file")
    printed = node.run(*argv, "synnefo", *files, "/srv/secrets/user").text
    port = json.loads(printed)["source_port"]
    with open_legacy(sharing, port, "vnc"):
        pass
    assert request_forwarding.__defaults__ is not None
    assert request_forwarding.__defaults__[:2] == ("127.0.0.1", 24999)
