"""Network namespaces; entering those of a machine, as a new program or for one call of ours."""

import contextlib
import ctypes
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from snf_ganeti import process
from testbed.deadline import wait_for

Value = TypeVar("Value")

_START_SECONDS = 60.0
_CLONE_NEWNET = 0x40000000  # linux/sched.h


def make_enter_argv(pid: int, argv: Sequence[str]) -> list[str]:
    """nsenter's argv: run `argv` in the machine whose PID 1 is `pid`, in its root."""
    kinds = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd")
    return ["nsenter", f"--target={pid}", *kinds, "--", *argv]


def make_enter_network_argv(pid: int, argv: Sequence[str]) -> list[str]:
    """nsenter's argv: run a program of this machine in the network of process `pid`."""
    return ["nsenter", f"--target={pid}", "--net", "--", *argv]


def call_in_network(pid: int, function: Callable[[], Value]) -> Value:
    """Call `function` in the network namespace of process `pid`.

    A thread of its own enters the namespace and ends there. A socket that it made stays in
    that network, whoever uses it.
    """
    results: list[Value] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            _enter_network(pid)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter, name=f"network of {pid}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def connect(pid: int, address: tuple[str, int], timeout: float) -> socket.socket:
    """A TCP connection made from the network of process `pid`. Raises OSError."""
    return call_in_network(pid, lambda: socket.create_connection(address, timeout))


def listen(pid: int, address: tuple[str, int]) -> socket.socket:
    """A TCP socket that listens in the network of process `pid`. Raises OSError."""
    return call_in_network(pid, lambda: socket.create_server(address))


@contextlib.contextmanager
def open_namespace() -> Iterator[int]:
    """A network namespace for the block, by the id of a process in it."""
    own = Path("/proc/self/ns/net").readlink()
    with process.spawn(["unshare", "--net", "--", "sleep", "infinity"]) as child:
        namespace = Path(f"/proc/{child.pid}/ns/net")
        wait_for("a network namespace", lambda: namespace.readlink() != own, _START_SECONDS)
        yield child.pid


def is_settled(pid: int) -> bool:
    """Has the kernel seen to every carrier in the network of a process? It does so in its own
    time after both ends of a cable are up, all networks of this machine in turn, and until then
    it drops what is sent, and a bridge's port is closed."""
    shown = process.run(make_enter_network_argv(pid, ["ip", "-json", "link", "show"])).stdout
    return not any(
        "LOWER_UP" in each["flags"] and each["operstate"] not in ("UP", "UNKNOWN")
        for each in json.loads(shown)
    )


def run_ip(pid: int, lines: Sequence[str]) -> None:
    """`ip` commands of this machine in the network of a process; ids are this machine's."""
    text = "".join(f"{line}\n" for line in lines)
    argv = make_enter_network_argv(pid, ["ip", "-batch", "-"])
    process.run(argv, stdin=text.encode())


def _enter_network(pid: int) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)
