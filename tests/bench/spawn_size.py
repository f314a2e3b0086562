"""A clone of a large image against one of a small image, created and attached."""

from bench.benchmark import Benchmark, Runs
from bench.rados import Site, measure, open_site

_ROUNDS = 7
_SIZES = (100, 1)


def spawn(site: Site, volume: str, origin: str, gibibytes: int) -> None:
    site.script("create", volume, origin=origin, size=gibibytes << 10)
    site.script("attach", volume)


def run() -> tuple[Runs, Runs]:
    runs: dict[int, list[float]] = {size: [] for size in _SIZES}
    with open_site("size") as site:
        origins = {size: site.publish(f"image{size}", size) for size in _SIZES}
        for number in range(_ROUNDS):
            for size, origin in origins.items():
                volume = f"v{number}-{size}"
                runs[size].append(measure(spawn, site, volume, origin, size))
                site.remove(volume)
    return runs[100], runs[1]


BENCHMARK = Benchmark("spawn-size", "s", 1.1, "a clone of 1 GiB", run)
