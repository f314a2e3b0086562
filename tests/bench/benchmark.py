"""What a benchmark declares, and the figure that its runs come to."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

Runs = Sequence[float]


@dataclass(frozen=True)
class Benchmark:
    """One comparison, less being better.

    name: also that of its result's file. unit: of each run, such as "s" or "MB".
    goal: the most that ours / peer may be. peer_name: what we are compared with; for an
    absolute bound, "the limit", which is then the peer's one run.
    measure: does all runs, ours and the peer's in turns, and gives (ours, peer).
    """

    name: str
    unit: str
    goal: float
    peer_name: str
    measure: Callable[[], tuple[Runs, Runs]]


@dataclass(frozen=True)
class Figure:
    """A benchmark that was run: medians of `runs_ours` and `runs_peer`, in `unit`."""

    benchmark: Benchmark
    runs_ours: tuple[float, ...]
    runs_peer: tuple[float, ...]

    @property
    def ours(self) -> float:
        return median(self.runs_ours)

    @property
    def peer(self) -> float:
        return median(self.runs_peer)

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def holds(self) -> bool:
        return self.ratio <= self.benchmark.goal


def find_benchmarks(package: str = "bench") -> list[Benchmark]:
    """The BENCHMARK of each module of a package that has one, by name."""
    folder = importlib.import_module(package).__path__
    names = (info.name for info in pkgutil.iter_modules(folder) if info.name != "__main__")
    modules = (importlib.import_module(f"{package}.{name}") for name in names)
    found = (getattr(module, "BENCHMARK", None) for module in modules)
    return sorted((each for each in found if each is not None), key=lambda each: each.name)


def run_benchmark(benchmark: Benchmark) -> Figure:
    ours, peer = benchmark.measure()
    return Figure(benchmark, tuple(ours), tuple(peer))
