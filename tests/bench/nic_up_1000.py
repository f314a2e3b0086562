"""The thousandth NIC up, against the tenth."""

from bench.benchmark import Benchmark, Runs
from bench.node_nics import add_taps, open_node, set_up_many, time_script

_RUNS = 9
_MANY = 1000


def measure() -> tuple[Runs, Runs]:
    with open_node("nic-up-1000") as hosting, hosting.serve():
        add_taps(hosting, range(1, 10 + _RUNS))
        first = [time_script(hosting, number) for number in range(1, 10 + _RUNS)]
        set_up_many(hosting, range(10 + _RUNS, _MANY))
        add_taps(hosting, range(_MANY, _MANY + _RUNS))
        last = [time_script(hosting, number) for number in range(_MANY, _MANY + _RUNS)]
    return last, first[9:]


BENCHMARK = Benchmark(
    name="nic-up-1000",
    unit="s",
    goal=1.2,
    peer_name="the 10th NIC",
    measure=measure,
)
