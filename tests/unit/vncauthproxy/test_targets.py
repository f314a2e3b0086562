"""What may be opened: JSON to targets, targets to allowed places."""

import asyncio
import socket
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError, NodeError
from vncauthproxy import settings
from vncauthproxy.instances.backend import make_demand
from vncauthproxy.instances.rapi import Console, parse_console
from vncauthproxy.instances.targets import Place, Target, find_places, find_socket, parse_target
from vncauthproxy.protocol.rfb import Subtype

LOOPBACK = settings.Targets(networks=("127.0.0.0/8",), ports="5900-5999")


def test_targets_of_each_kind() -> None:
    assert parse_target({"instance": "web1.example"}) == Target(instance="web1.example")
    assert parse_target({"host": "::1", "port": 5900}) == Target(host="::1", port=5900)
    assert parse_target({"unix": "/run/x.vnc"}) == Target(unix="/run/x.vnc")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"instance": "a", "host": "b", "port": 1},
        {"host": "a"},
        {"port": 5900},
        {"instance": "../etc"},
        {"instance": "a/b"},
        {"instance": 7},
        {"host": "a b", "port": 1},
        {"host": "a", "port": True},
        {"host": "a", "port": "5900"},
        {"unix": "relative"},
        {"unix": "/run/../etc/x"},
        {"unix": "/run//x"},
        {"unix": "/" + "x" * 200},
        {"unix": "/run/\0"},
        {"surprise": 1},
    ],
)
def test_targets_that_are_none(document: dict[str, object]) -> None:
    with pytest.raises(InputError):
        parse_target(document)


def find(target: Target, allowed: settings.Targets = LOOPBACK) -> list[Place]:
    return asyncio.run(find_places(target, allowed))


def test_address_in_an_allowed_network() -> None:
    (place,) = find(Target(host="127.0.0.1", port=5900))
    assert place == Place(socket.AF_INET, ("127.0.0.1", 5900), "127.0.0.1")


@pytest.mark.parametrize("host", ["192.0.2.1", "::ffff:192.0.2.1", "::1", "169.254.169.254"])
def test_address_in_no_allowed_network(host: str) -> None:
    with pytest.raises(InputError, match="in no network"):
        find(Target(host=host, port=5900))


def test_ipv4_address_in_the_clothes_of_ipv6_is_one() -> None:
    assert find(Target(host="::ffff:127.0.0.1", port=5900))


@pytest.mark.parametrize("port", [22, 80, 5899, 6000])
def test_port_that_is_not_allowed(port: int) -> None:
    with pytest.raises(InputError, match=f"port {port}"):
        find(Target(host="127.0.0.1", port=port))


def test_unix_socket_directly_in_an_allowed_folder(tmp_path: Path) -> None:
    allowed = settings.Targets(unix_directories=(tmp_path,))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a.vnc"))
        assert find_socket(tmp_path / "a.vnc", allowed).address == str(tmp_path / "a.vnc")
        (tmp_path / "link.vnc").symlink_to(tmp_path / "a.vnc")
        with pytest.raises(InputError, match="not a socket"):
            find_socket(tmp_path / "link.vnc", allowed)
    (tmp_path / "deeper").mkdir()
    with pytest.raises(InputError, match="in no folder"):
        find_socket(tmp_path / "deeper/a.vnc", allowed)
    with pytest.raises(NodeError, match="No such file"):
        find_socket(tmp_path / "b.vnc", allowed)


def test_console_of_ganetis_answer() -> None:
    answer = {
        "oper_state": True,
        "pnode": "node2.example",
        "network_port": 11003,
        "hvparams": {"vnc_bind_address": "0.0.0.0"},
    }
    assert parse_console("web1", answer) == Console("node2.example", 11003, "0.0.0.0")
    with pytest.raises(InputError, match="web1 is not running"):
        parse_console("web1", {**answer, "oper_state": False})
    with pytest.raises(InputError, match="no VNC console"):
        parse_console("web1", {**answer, "hvparams": {"vnc_bind_address": ""}})


REMOTE = Place(socket.AF_INET, ("192.0.2.1", 5900), "node")
LOCAL = Place(socket.AF_INET, ("127.0.0.1", 5900), "localhost")


def test_demands_of_tls() -> None:
    """A CA means that certificates count; `require` leaves clear to this machine alone."""
    anonymous = {Subtype.TLS_NONE, Subtype.TLS_VNC}
    prefer = make_demand(settings.Targets(), None, REMOTE)
    assert (set(prefer.subtypes), prefer.clear) == (anonymous, True)
    with_ca = make_demand(settings.Targets(ca=Path("ca.pem")), None, REMOTE)
    assert not anonymous & set(with_ca.subtypes)
    require = settings.Targets(tls="require", ca=Path("ca.pem"))
    assert not make_demand(require, None, REMOTE).clear
    assert make_demand(require, None, LOCAL).clear
    assert not make_demand(settings.Targets(tls="off"), None, REMOTE).subtypes
