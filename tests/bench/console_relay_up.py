"""`relay-up`: from a browser to an instance, in frames of 10 KiB as noVNC makes them."""

import struct
import time

from bench.benchmark import Benchmark, Runs
from bench.console import PEER, Console, make_frame
from bench.console_relay import measure_in_turns

_MEGABYTES = 300
_FRAME = 10_000
_CLIPBOARD = b"\6\0\0\0" + (1_000_000 - 8).to_bytes(4, "big") + b"x" * (1_000_000 - 8)
"""A million bytes of messages that an instance takes: one clipboard."""
_FRAMES = b"".join(
    make_frame(_CLIPBOARD[at : at + _FRAME]) for at in range(0, len(_CLIPBOARD), _FRAME)
)


def measure_up(console: Console) -> float:
    """Seconds for a gigabyte, until the last byte has come out behind the proxy."""
    console.send(struct.pack(">BBxxI", 4, 0, _MEGABYTES))
    start = time.perf_counter()
    for _ in range(_MEGABYTES):
        console.tls.sendall(_FRAMES)
    console.read(1)
    seconds = time.perf_counter() - start
    console.close()
    return seconds * 1000 / _MEGABYTES


def measure() -> tuple[Runs, Runs]:
    return measure_in_turns("sink", measure_up)


BENCHMARK = Benchmark("relay-up", "s/GB", 1 / 1.3, PEER, measure)
