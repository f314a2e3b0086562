"""`echo`: what a proxy adds to the way of a key to its effect, p99, beside 200 active sessions."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median, quantiles
from typing import Protocol

from bench.benchmark import Benchmark, Runs
from bench.console import HOST, PEER, ROUNDS, Console, running_pair

_ACTIVE = 200
_PAUSE = 0.2  # seconds between the keys of an active session
_KEYS = 1500
_KEY = b"\4\1\0\0\0\0\0\x61"


class Echoing(Protocol):
    def send(self, data: bytes) -> None: ...
    def read(self, size: int) -> bytes: ...


class Direct:
    """To the server without any proxy."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for expected, said in ((12, b"RFB 003.008\n"), (2, b"\1"), (4, b"\1"), (28, b"")):
            self.read(expected)
            self.send(said)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self._socket.recv(size - len(data))
        return data


def time_keys(echoing: Echoing) -> list[float]:
    """Milliseconds of each key."""
    times = []
    for _ in range(_KEYS):
        start = time.perf_counter()
        echoing.send(_KEY)
        echoing.read(len(_KEY))
        times.append((time.perf_counter() - start) * 1000)
    return times


@contextlib.contextmanager
def active(consoles: list[Console]) -> Iterator[None]:
    """Each presses a key now and then, all through the block."""
    stop = threading.Event()

    def press() -> None:
        while not stop.is_set():
            for console in consoles:
                console.send(_KEY)
                console.read(len(_KEY))
                if stop.wait(_PAUSE / len(consoles)):
                    return

    thread = threading.Thread(target=press)
    thread.start()
    yield
    stop.set()
    thread.join()


def measure_p99(open_console: Callable[[], Console], direct: float) -> float:
    consoles = [open_console() for _ in range(_ACTIVE)]
    measured = open_console()
    with active(consoles):
        times = time_keys(measured)
    for console in (*consoles, measured):
        console.close()
    return quantiles(times, n=100)[98] - direct


def measure() -> tuple[Runs, Runs]:
    ours, peer = [], []
    with running_pair("echo") as pair:
        direct = median(time_keys(Direct(pair.backend)))
        controller = pair.open_controller()
        for _ in range(ROUNDS):
            ours.append(measure_p99(partial(pair.open_ours, controller), direct))
            peer.append(measure_p99(pair.open_peer, direct))
            controller.close()
            controller = pair.open_controller()
    return ours, peer


BENCHMARK = Benchmark("echo", "ms", 1.0, PEER, measure)
