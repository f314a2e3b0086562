"""A hundred clones of one image, each created, attached and detached: do they slow down?"""

from bench.benchmark import Benchmark, Runs
from bench.rados import Site, measure, open_site

_CLONES = 100
_EDGE = 10


def spawn(site: Site, volume: str, origin: str) -> None:
    site.script("create", volume, origin=origin, size=1 << 10)
    site.script("attach", volume)
    site.script("detach", volume)


def run() -> tuple[Runs, Runs]:
    with open_site("hundred") as site:
        origin = site.publish("image", 1)
        spawn(site, "warm", origin)
        runs = [measure(spawn, site, f"v{number}", origin) for number in range(_CLONES)]
    return runs[-_EDGE:], runs[:_EDGE]


BENCHMARK = Benchmark("spawn-100", "s", 1.2, "the first ten of 100", run)
