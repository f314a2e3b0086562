"""`open`: sessions opened, from the order of a ticket to the first frame; websockify's without a
ticket, which it does not have. Eight at a time."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.benchmark import Benchmark, Runs
from bench.console import PEER, ROUNDS, Console, Pair, running_pair

_SESSIONS = 160
_AT_ONCE = 8
_FRAME_REQUEST = b"\4" + bytes(7)


def open_many(open_console: Callable[[], Console], count: int) -> None:
    for _ in range(count):
        console = open_console()
        console.send(_FRAME_REQUEST)
        console.read(len(_FRAME_REQUEST))
        console.close()


def measure_ours(pair: Pair, count: int) -> None:
    controller = pair.open_controller()
    open_many(lambda: pair.open_ours(controller), count)
    controller.close()


def time_all(work: Callable[[int], None]) -> float:
    """Seconds of 100 sessions."""
    start = time.perf_counter()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(work, [_SESSIONS // _AT_ONCE] * _AT_ONCE))
    return (time.perf_counter() - start) * 100 / _SESSIONS


def measure() -> tuple[Runs, Runs]:
    ours, peer = [], []
    with running_pair("echo") as pair:
        for _ in range(ROUNDS):
            ours.append(time_all(lambda count: measure_ours(pair, count)))
            peer.append(time_all(lambda count: open_many(pair.open_peer, count)))
    return ours, peer


BENCHMARK = Benchmark("open", "s/100", 0.5, PEER, measure)
