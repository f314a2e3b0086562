"""Why a session ended, told from what its two connections do."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from vncauthproxy.connections.stream import Stream, closing
from vncauthproxy.instances.targets import Target
from vncauthproxy.protocol.client_messages import ClientMessages
from vncauthproxy.session import CLIENT_LEFT, INSTANCE_LEFT, End, Session, Viewer
from vncauthproxy.tickets import Grant

_KEY = struct.pack(">BBxxI", 4, 1, 97)
_SECONDS = 30.0


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: ours, and the other side's."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as other,
    ):
        ours, _ = listener.accept()
        with ours:
            yield ours, other


def leave(other: socket.socket) -> None:
    other.close()


def reset(other: socket.socket) -> None:
    """As the kernel does for who closes with something unread."""
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()


def relay(act: Callable[[socket.socket, socket.socket], None]) -> End:
    """What a session ends with. act: is given the client's and the instance's side before."""

    async def run() -> End:
        grant = Grant("0" * 16, "alice", "web1", Target(instance="web1"))
        session = Session(grant, "viewer", "192.0.2.1", ClientMessages())
        with connected() as (client, far_client), connected() as (backend, far_backend):
            act(far_client, far_backend)
            with (
                closing(Stream(client)) as ours,
                closing(Stream(backend)) as theirs,
            ):
                async with asyncio.timeout(_SECONDS):
                    return await session.relay(Viewer(ours), theirs, b"")

    return asyncio.run(run())


@pytest.mark.parametrize("go", [leave, reset])
def test_side_that_left_is_named_however_it_went(go: Callable[[socket.socket], None]) -> None:
    assert relay(lambda client, instance: go(client)) == CLIENT_LEFT
    assert relay(lambda client, instance: go(instance)) == INSTANCE_LEFT


def test_side_that_left_is_named_when_it_was_still_written_to() -> None:
    def type_into_nothing(client: socket.socket, instance: socket.socket) -> None:
        client.sendall(_KEY)
        reset(instance)

    def draw_for_nobody(client: socket.socket, instance: socket.socket) -> None:
        instance.sendall(bytes(1 << 16))
        reset(client)

    assert relay(type_into_nothing) == INSTANCE_LEFT
    assert relay(draw_for_nobody) == CLIENT_LEFT
