"""Every way of QEMU to be a VNC server, seen through the proxy: what is judged are pixels that a
guest draws, and the effect of keys on it."""

from pathlib import Path

import pytest

from testbed.console import Proxy
from testbed.console_client import WebSocketClient, open_console, paint
from testbed.deadline import wait_for
from testbed.machine import Machine
from testbed.vnc_servers import DISPLAYS, PASSWORD, PKI, SOCKET, SOCKET_FOLDER

SECONDS = 120.0


@pytest.mark.parametrize("name", ["x509", "x509-password", "x509-verify", "none", "password"])
def test_each_security_of_qemu_with_checked_certificates(
    checked: Proxy, green: None, name: str
) -> None:
    password = {"password": PASSWORD} if "password" in name else {}
    target = {"host": "127.0.0.1", "port": DISPLAYS[name][0]}
    client = open_console(checked, checked.order(target=target, **password))
    paint(client, "d")


@pytest.mark.parametrize("name", ["tls", "tls-password"])
def test_each_security_of_qemu_without_certificates(sharing: Proxy, green: None, name: str) -> None:
    password = {"password": PASSWORD} if "password" in name else {}
    target = {"host": "127.0.0.1", "port": DISPLAYS[name][0]}
    paint(open_console(sharing, sharing.order(target=target, **password)), "d")


def test_unix_socket_of_qemu(checked: Proxy, green: None) -> None:
    paint(open_console(checked, checked.order(target={"unix": SOCKET})), "d")


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("password", {}, "wants a password"),
        ("password", {"password": "wrong"}, "refused us"),
        ("x509-password", {}, "none of which can be used"),
        ("tls", {}, "none of which can be used"),  # certificates are demanded, and it has none
    ],
)
def test_backend_that_does_not_let_us_in_is_told_to_the_user(
    checked: Proxy, name: str, fields: dict[str, str], reason: str
) -> None:
    ticket = checked.order(target={"host": "127.0.0.1", "port": DISPLAYS[name][0]}, **fields)
    client = WebSocketClient(checked.open_tls(), ticket["ticket"])
    code, said = client.wait_for_close()
    assert code == 4002 and reason in said
    assert reason in checked.find_audit(ticket["session"])["end"]


def test_certificate_of_a_backend_by_another_ca_is_not_accepted(
    checked: Proxy, node: Machine, folder: Path
) -> None:
    node.run("mkdir", "--parents", "/srv/foreign")
    for name in ("foreign-cert", "foreign-key", "other-ca-cert"):
        file = name.replace("foreign", "server").replace("other-ca", "ca")
        node.run("cp", f"{PKI}/{name}.pem", f"/srv/foreign/{file}.pem")
    argv = (
        *("qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "16", "-nodefaults", "-S"),
        *("-object", "tls-creds-x509,id=x,dir=/srv/foreign,endpoint=server,verify-peer=off"),
        *("-vnc", "127.0.0.1:20,tls-creds=x"),
    )
    with node.spawn(*argv, output=folder / "foreign.log"):
        wait_for("QEMU", lambda: listens(node, 5920), SECONDS)
        ticket = checked.order(target={"host": "127.0.0.1", "port": 5920})
        client = WebSocketClient(checked.open_tls(), ticket["ticket"])
        code, said = client.wait_for_close()
        assert code == 4002 and "certificate is not accepted" in said


def listens(node: Machine, port: int) -> bool:
    return bool(node.run("ss", "-Hltn", f"sport = :{port}").text)


@pytest.mark.parametrize(
    "target",
    [
        {"host": "192.0.2.1", "port": 5900},
        {"host": "127.0.0.1", "port": 22},
        {"unix": "/run/ganeti/socket/x"},
        {"unix": f"{SOCKET_FOLDER}/../pki/ca-key.pem"},
        {"host": "127.0.0.1", "port": 5901, "unix": SOCKET},
    ],
)
def test_target_that_is_not_allowed_gets_no_ticket(checked: Proxy, target: object) -> None:
    status, answer = checked.ask("POST", "/tickets", {"user": "a", "target": target})
    assert status == 422 and answer["error"]
