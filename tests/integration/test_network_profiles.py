"""What the built-in profiles let in, and what a guest may send whatever its profile.

Every cell of kind, family, profile and probe.
"""

import socket
from collections.abc import Iterator

import pytest

from testbed.admitted_packets import INWARD, LET_IN
from testbed.bed import Bed
from testbed.guest_frames import find_lawful, find_passed, make_frames
from testbed.packets import FAMILIES, KINDS, Setting, open_setting


@pytest.fixture(scope="module", params=KINDS)
def setting(request: pytest.FixtureRequest, bed: Bed) -> Iterator[Setting]:
    with open_setting(bed, request.param) as opened:
        yield opened


@pytest.mark.parametrize("profile", LET_IN)
@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_what_a_profile_lets_in(setting: Setting, family: int, profile: str) -> None:
    setting.set_profile(profile)
    passed = {name for name, reach in INWARD.items() if reach(setting, family)}
    assert passed == LET_IN[profile]
    frames = make_frames(setting, family)
    assert find_passed(setting, frames, family) == find_lawful(frames)


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_connections_outlive_a_change_of_profile(setting: Setting, family: int) -> None:
    setting.set_profile("unprotected")
    with (
        setting.guest.open_socket(family, socket.SOCK_STREAM) as server,
        setting.peer.open_socket(family, socket.SOCK_STREAM) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", 22))
        server.listen()
        client.connect((setting.get_guest(family), 22))
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(60)
            for profile in ("limited", "protected", "limited"):
                setting.set_profile(profile)
                client.sendall(profile.encode())
                assert accepted.recv(100) == profile.encode()
                accepted.sendall(b"heard")
                assert client.recv(100) == b"heard"
