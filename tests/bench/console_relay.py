"""`relay`: from an instance to a browser, one session, against websockify with the same TLS."""

import time
from collections.abc import Callable

from bench.benchmark import Benchmark, Runs
from bench.console import PEER, ROUNDS, Console, running_pair

_BYTES = 600_000_000


def measure_down(console: Console) -> float:
    """Seconds for a gigabyte. What the browser would do with it is not measured: TLS's bytes
    are counted, frames and all."""
    buffer, got = bytearray(1 << 16), 0
    console.send(b"\4" + bytes(7))  # the source waits for it
    start = time.perf_counter()
    while got < _BYTES:
        got += console.tls.recv_into(buffer)
    seconds = time.perf_counter() - start
    console.close()
    return seconds * 1e9 / got


def measure_in_turns(
    mode: str, measure: Callable[[Console], float]
) -> tuple[list[float], list[float]]:
    """Ours and the peer's, one session after the other."""
    ours, peer = [], []
    with running_pair(mode) as pair:
        controller = pair.open_controller()
        for _ in range(ROUNDS):
            ours.append(measure(pair.open_ours(controller)))
            peer.append(measure(pair.open_peer()))
            controller.close()
            controller = pair.open_controller()
        controller.close()
    return ours, peer


def measure() -> tuple[Runs, Runs]:
    return measure_in_turns("source", measure_down)


BENCHMARK = Benchmark("relay", "s/GB", 1 / 1.3, PEER, measure)
