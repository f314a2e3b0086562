"""A disk served over NBD by QEMU's storage daemon in a jail, on a socket that is nobody else's.

The socket's name lives in a network namespace that was made for it and has no process in it:
it is reached by the sockets that were made there with it, and by nothing else of this node;
no file is left when all die.
"""

import contextlib
import ctypes
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from snf_ganeti.errors import NodeError
from snf_image_helper.protocol import clean_text
from snf_image_host.confinement.jail import Confinement, Jail, spawn_jailed

_NODE = "disk"
_NAME = b"\0nbd"
_CLIENTS = 4
"""Connections that a server may ever have: one copies, one is the helper's, two to spare."""
_CLONE_NEWNET = 0x40000000
_MESSAGES_SIZE = 16 << 10
_QUIT = b'{"execute": "qmp_capabilities"}{"execute": "quit"}'
_QUIT_SECONDS = 10.0
_PREFIX = re.compile(r"^qemu-storage-daemon: (--blockdev \{.*?\}: )?")

_libc = ctypes.CDLL(None, use_errno=True)


class NbdServer:
    """A server that runs, or is about to."""

    def __init__(
        self, child: subprocess.Popen[bytes], clients: list[socket.socket], messages: int
    ) -> None:
        self._child = child
        self._clients = clients
        self._messages = messages

    def connect(self) -> socket.socket:
        """A new connection, on which no byte was said; the export has the empty name."""
        client = self._clients.pop()
        try:
            client.connect(_NAME)
        except OSError:
            client.close()
            raise NodeError(f"the disk's server ended: {self.last_message}") from None
        return client

    def kill(self) -> None:
        self._child.kill()

    @property
    def last_message(self) -> str:
        """What the server said last."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(1)
        said = os.pread(self._messages, _MESSAGES_SIZE, 0).decode("utf-8", "replace").strip()
        last = clean_text(said.splitlines()[-1]) if said else "nothing"
        return _PREFIX.sub("", last)


def make_server_argv(
    node: Mapping[str, Any],
    listener: int,
    *,
    writable: bool,
    secret: int | None = None,
    monitor: int | None = None,
) -> list[str]:
    """The daemon's argv. node: options of a block node, as `blockdev-add` takes them. secret:
    a descriptor that holds base64, which the node knows as object `key`. monitor: a connected
    socket, on which it is told to quit."""
    on = "on" if writable else "off"
    key = f"secret,id=key,format=base64,file=/dev/fd/{secret}"
    return [
        "qemu-storage-daemon",
        *(("--object", key) if secret is not None else ()),
        *(("--chardev", f"socket,id=monitor,fd={monitor}") if monitor is not None else ()),
        *(("--monitor", "chardev=monitor") if monitor is not None else ()),
        *("--blockdev", json.dumps({**node, "node-name": _NODE})),
        *("--nbd-server", f"addr.type=fd,addr.str={listener},max-connections={_CLIENTS}"),
        *("--export", f"type=nbd,id=export,node-name={_NODE},name=,writable={on}"),
    ]


@contextlib.contextmanager
def serve(
    jail: Jail,
    node: Mapping[str, Any],
    confinement: Confinement,
    *,
    pass_fds: Collection[int] = (),
    writable: bool = False,
    secret: str = "",
    orderly: bool = False,
) -> Iterator[NbdServer]:
    """Serve a block node until the block ends. secret: base64, the node's object `key`.
    orderly: the server is asked to end, and closes what it has open: storage that it reaches
    over the network would believe in a client that was killed, and keep the disk from others.

    Raises NodeError.
    """
    with contextlib.ExitStack() as stack:
        listener, clients = _make_sockets()
        for each in (listener, *clients):
            stack.callback(each.close)
        messages = os.memfd_create("messages", os.MFD_CLOEXEC)
        stack.callback(os.close, messages)
        key = stack.enter_context(_hold(secret, jail)) if secret else None
        monitor, ours = _make_monitor(stack) if orderly else (None, None)
        argv = make_server_argv(
            node, listener.fileno(), writable=writable, secret=key, monitor=monitor
        )
        inherited = (listener.fileno(), *(each for each in (key, monitor) if each is not None))
        child = stack.enter_context(
            spawn_jailed(jail, argv, confinement, stderr=messages, pass_fds=(*pass_fds, *inherited))
        )
        listener.close()  # it is the server's alone: when it ends, clients see it
        if ours is not None:
            stack.callback(_quit, child, ours)
        yield NbdServer(child, clients, messages)


def _make_monitor(stack: contextlib.ExitStack) -> tuple[int, socket.socket]:
    """The server's end and ours of a connection, open until the stack ends."""
    theirs, ours = socket.socketpair()
    for each in (theirs, ours):
        stack.callback(each.close)
    return theirs.fileno(), ours


def _quit(child: subprocess.Popen[bytes], monitor: socket.socket) -> None:
    with contextlib.suppress(OSError):
        monitor.sendall(_QUIT, socket.MSG_DONTWAIT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_QUIT_SECONDS)


@contextlib.contextmanager
def _hold(secret: str, jail: Jail) -> Iterator[int]:
    """A pipe that holds a secret: it can be read once, and lies nowhere. Who reads it opens it
    anew, by its descriptor's name, and has to be its owner."""
    reader, writer = os.pipe()
    try:
        os.fchown(reader, jail.uid, jail.gid)
        os.write(writer, secret.encode())
        os.close(writer)
        yield reader
    finally:
        os.close(reader)


def _make_sockets() -> tuple[socket.socket, list[socket.socket]]:
    """A listening socket and its future clients, all of a new network namespace.

    A thread enters the namespace and ends; a socket stays in the one that it was made in.
    """
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        if _libc.unshare(_CLONE_NEWNET):
            number = ctypes.get_errno()
            failed.append(OSError(number, os.strerror(number)))
            return
        made.extend(socket.socket(socket.AF_UNIX) for _ in range(_CLIENTS + 1))
        made[0].bind(_NAME)
        made[0].listen(_CLIENTS)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise NodeError(f"no network namespace can be made: {failed[0].strerror}")
    return made[0], made[1:]
