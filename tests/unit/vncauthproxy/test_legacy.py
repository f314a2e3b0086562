"""The predecessor's requests and users: what is taken, and that nothing secret is shown."""

import ipaddress
import json
import os
import stat
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError, NodeError, SettingsError
from vncauthproxy import users
from vncauthproxy.commands import passwd
from vncauthproxy.entrances.legacy_console import Ports
from vncauthproxy.entrances.legacy_request import Forwarding, parse_forwarding

REQUEST = {
    "source_port": 0,
    "destination_address": "127.0.0.1",
    "destination_port": 5900,
    "password": "console-secret",
    "auth_user": "synnefo",
    "auth_password": "user-secret",
    "type": "vnc-wss",
}


def test_request_as_synnefo_sends_it() -> None:
    asked = parse_forwarding(json.dumps(REQUEST).encode())
    assert asked == Forwarding(
        *(0, "127.0.0.1", 5900, "synnefo", "vnc-wss", "console-secret", "user-secret")
    )
    assert "secret" not in repr(asked)
    old = {key: value for key, value in REQUEST.items() if key != "type"}
    assert parse_forwarding(json.dumps(old).encode()).type == "vnc"


@pytest.mark.parametrize(
    "change",
    [
        {"source_port": "x"},
        {"destination_address": None},
        {"password": ""},
        {"password": 7},
        {"auth_user": []},
        {"type": "spice"},
        {"type": None},
    ],
)
def test_requests_that_are_refused_without_showing_secrets(change: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        parse_forwarding(json.dumps({**REQUEST, **change}).encode())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\0" * 100, b"[" * 4000])
def test_what_is_no_request(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_forwarding(data)


def test_users_file_of_the_predecessor(tmp_path: Path) -> None:
    """The hash is `openssl passwd -6 -salt saltsalt secret`."""
    path = tmp_path / "users"
    path.write_text(
        "# a comment\n\nsynnefo:$6$saltsalt$"
        "TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n"
    )
    known = users.read_users(path)
    assert set(known) == {"synnefo"}
    assert users.verify(known, "synnefo", "secret")
    assert not users.verify(known, "synnefo", "wrong")
    assert not users.verify(known, "nobody", "secret")
    assert not users.verify(known, "synnefo", "sec\0ret")


def test_password_that_was_set_is_good(tmp_path: Path) -> None:
    path = tmp_path / "users"
    passwd.change_user(path, "alice", f"alice:{users.hash_password('right')}")
    passwd.change_user(path, "bob", f"bob:{users.hash_password('other')}")
    passwd.change_user(path, "alice", f"alice:{users.hash_password('new')}")
    known = users.read_users(path)
    assert users.verify(known, "alice", "new")
    assert not users.verify(known, "alice", "right")
    assert users.verify(known, "bob", "other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    passwd.change_user(path, "bob", None)
    assert set(users.read_users(path)) == {"alice"}
    with pytest.raises(InputError, match="no user bob"):
        passwd.change_user(path, "bob", None)


def test_mode_and_comments_of_a_users_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# ours\n")
    path.chmod(0o604)
    passwd.change_user(path, "alice", "alice:$6$s$h")
    assert path.read_text() == "# ours\nalice:$6$s$h\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert [each.name for each in tmp_path.iterdir()] == ["users"]


@pytest.mark.parametrize("line", ["alice", "alice:plain", "Alice:$6$s$h", ":$6$s$h", "a:$1$s$h"])
def test_users_line_that_is_none(tmp_path: Path, line: str) -> None:
    path = tmp_path / "users"
    path.write_text(f"{line}\n")
    with pytest.raises(SettingsError, match="users:1"):
        users.read_users(path)


def test_pool_of_ports_gives_each_port_once() -> None:
    address = ipaddress.ip_address("127.0.0.0") + os.getpid()  # no other process's
    ports = Ports(str(address), range(29871, 29873))
    first, second = ports.open(0), ports.open(0)
    assert {first.getsockname()[1], second.getsockname()[1]} == {29871, 29872}
    with pytest.raises(NodeError, match="no port of the pool"):
        ports.open(0)
    with pytest.raises(InputError, match="port 80 is not one of the pool"):
        ports.open(80)
    first.close()
    ports.open(0).close()  # the last port comes back, too
    second.close()
