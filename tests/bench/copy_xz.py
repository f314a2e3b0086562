"""An xz-compressed Debian image, unpacked onto a disk, durable at the end."""

from bench.benchmark import Benchmark, Runs
from bench.copying import deploy, make_folder, measure_in_turns, run_durably
from testbed import images


def measure() -> tuple[Runs, Runs]:
    packed = images.build_form(images.RECIPES["bench"], "xz")
    size = images.build(images.RECIPES["bench"]).stat().st_size
    with make_folder() as folder:
        disk = folder / "disk"
        pipe = f"xz -T0 -dc {packed} | dd conv=sparse,notrunc status=none of={disk}"
        return measure_in_turns(
            disk, size, lambda: deploy(packed, disk), lambda: run_durably(disk, pipe, shell=True)
        )


BENCHMARK = Benchmark("copy-xz", "s", 0.8, "xz -T0 -dc | dd conv=sparse, fsync", measure)
