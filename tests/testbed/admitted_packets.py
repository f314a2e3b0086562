"""What comes to a guest, and what each built-in profile lets in of it."""

import contextlib
import socket
from collections.abc import Callable
from functools import partial

from scapy.layers.l2 import Ether

from testbed.packets import Setting, make_mark, passes


def reach_tcp(setting: Setting, family: int, port: int) -> bool:
    """Does a connection to the guest come about, or not even its first packet arrive?"""
    with setting.guest.open_socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", port))
        server.listen()
        with setting.peer.open_socket(family, socket.SOCK_STREAM) as client:
            client.setblocking(False)

            def connect() -> None:
                with contextlib.suppress(BlockingIOError):
                    client.connect((setting.get_guest(family), port))

            def is_first(frame: Ether) -> bool:
                return "TCP" in frame and frame["TCP"].dport == port

            seen = passes(setting, family, setting.peer, setting.guest, connect, is_first)
            if not seen:
                return False
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(60)
                client.settimeout(60)
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"
            return True


def reach_udp(setting: Setting, family: int) -> bool:
    text = make_mark("datagram")
    with setting.peer.open_socket(family, socket.SOCK_DGRAM) as client:

        def send() -> None:
            client.sendto(text, (setting.get_guest(family), 5000))

        return arrives(setting, family, text, send)


def reach_icmp(setting: Setting, family: int) -> bool:
    text = make_mark("request")
    ask = setting.make_end(family, setting.peer, setting.guest)
    return arrives(setting, family, text, partial(ask, text))


def arrives(setting: Setting, family: int, text: bytes, send: Callable[[], None]) -> bool:
    """Does what the peer sends reach the guest? text: by which it is known."""

    def is_it(frame: Ether) -> bool:
        return text in bytes(frame)

    return bool(passes(setting, family, setting.peer, setting.guest, send, is_it))


def get_replies(setting: Setting, family: int) -> bool:
    """The guest asks the peer, by UDP and TCP, and gets the answers."""
    peer = setting.get_peer(family)
    with (
        setting.peer.open_socket(family, socket.SOCK_DGRAM) as server,
        setting.guest.open_socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((peer, 5001))
        client.sendto(b"question", (peer, 5001))
        question, who = server.recvfrom(100)
        server.sendto(b"answer", who)
        assert (question, client.recv(100)) == (b"question", b"answer")
    with (
        setting.peer.open_socket(family, socket.SOCK_STREAM) as server,
        setting.guest.open_socket(family, socket.SOCK_STREAM) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((peer, 5001))
        server.listen()
        client.connect((peer, 5001))
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"answer")
            return client.recv(100) == b"answer"


INWARD: dict[str, Callable[[Setting, int], bool]] = {
    "TCP 22": lambda setting, family: reach_tcp(setting, family, 22),
    "TCP 80": lambda setting, family: reach_tcp(setting, family, 80),
    "UDP": reach_udp,
    "ICMP": reach_icmp,
    "replies": get_replies,
}
LET_IN = {
    "unprotected": {"TCP 22", "TCP 80", "UDP", "ICMP", "replies"},
    "limited": {"TCP 22", "ICMP", "replies"},
    "protected": {"ICMP", "replies"},
}
