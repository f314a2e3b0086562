"""`sessions-memory`: of an idle session among 1,000, against one process of websockify."""

import re
from pathlib import Path

from bench.benchmark import Benchmark, Runs
from bench.console import PEER, Console, Pair, running_pair
from testbed.deadline import wait_for

_OURS = 1000
_PEERS = 50  # it takes a process for each, all alike
_SECONDS = 60.0


def read_memory(pid: int) -> float:
    """MiB of a process alone: its share of what it shares with others (proc(5), Pss)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    matched = re.search(r"^Pss:\s*(\d+) kB", rollup, re.MULTILINE)
    assert matched
    return int(matched[1]) / 1024


def find_children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def measure_ours(pair: Pair) -> float:
    before = read_memory(pair.ours_pid)
    controller = pair.open_controller()
    consoles = [pair.open_ours(controller) for _ in range(_OURS)]
    per_session = (read_memory(pair.ours_pid) - before) / _OURS
    close(consoles)
    return per_session


def measure_peer(pair: Pair) -> float:
    consoles = [pair.open_peer() for _ in range(_PEERS)]
    children = find_children(pair.peer_pid)
    per_session = sum(map(read_memory, children)) / len(children)
    close(consoles)
    wait_for("websockify's children", lambda: not find_children(pair.peer_pid), _SECONDS)
    return per_session


def close(consoles: list[Console]) -> None:
    for console in consoles:
        console.close()


def measure() -> tuple[Runs, Runs]:
    ours, peer = [], []
    for _ in range(3):  # a process that had them once keeps some of it
        with running_pair("echo") as pair:
            ours.append(measure_ours(pair))
            peer.append(measure_peer(pair))
    return ours, peer


BENCHMARK = Benchmark("sessions-memory", "MiB", 0.05, PEER, measure)
