"""`python3 -m bench [NAME…]`: run benchmarks, write build/bench/NAME.json, print the table.

A goal that is missed is a figure and not a failure; a benchmark that can't be run is one.
"""

import argparse
import logging
from pathlib import Path

from bench.benchmark import Benchmark, Figure, find_benchmarks, run_benchmark
from bench.report import describe_machine, make_table, write_document
from snf_ganeti.errors import InputError, NodeError, SnfError, run_main
from snf_ganeti.log import configure

FOLDER = Path(__file__).resolve().parents[2] / "build/bench"

log = logging.getLogger(__name__)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Run the benchmarks.")
    parser.add_argument("name", nargs="*", help="which; all when none is named")
    names = parser.parse_args().name
    configure("bench")
    chosen = choose(find_benchmarks(), names)
    machine = describe_machine(Path("/proc/cpuinfo").read_text(), Path("/proc/meminfo").read_text())
    figures, failed = run_all(chosen, machine)
    print(make_table(figures))
    print(machine)
    if failed:
        raise NodeError(f"could not be run: {', '.join(failed)}", hint="the reasons are above")
    return 0


def choose(benchmarks: list[Benchmark], names: list[str]) -> list[Benchmark]:
    """The benchmarks of these names, or all. Raises InputError for a name that is none."""
    known = {benchmark.name: benchmark for benchmark in benchmarks}
    for name in names:
        if name not in known:
            hint = f"there are: {', '.join(known) or 'none'}"
            raise InputError(f"no benchmark is named {name}", hint=hint)
    return [known[name] for name in names] or benchmarks


def run_all(benchmarks: list[Benchmark], machine: str) -> tuple[list[Figure], list[str]]:
    """Figures, each written as soon as it is there, and the names of those that failed."""
    figures, failed = [], []
    for benchmark in benchmarks:
        log.info("%s, against %s …", benchmark.name, benchmark.peer_name)
        try:
            figure = run_benchmark(benchmark)
        except SnfError as error:
            log.error("%s: %s", benchmark.name, error)
            failed.append(benchmark.name)
        else:
            write_document(figure, FOLDER, machine)
            figures.append(figure)
    return figures, failed


if __name__ == "__main__":
    run_main(main)
