"""The sparse copy alone: a 10 GiB image with 1 GiB of data, raw to raw, durable at the end."""

from bench.benchmark import Benchmark, Runs
from bench.copying import GIB, deploy, make_folder, make_image, measure_in_turns, run_durably


def measure() -> tuple[Runs, Runs]:
    with make_folder() as folder:
        image, disk = folder / "image", folder / "disk"
        make_image(image, 10 * GIB, GIB)
        convert = ("qemu-img", "convert", "-m", "16", "-W", "-f", "raw", "-O", "raw", image, disk)
        return measure_in_turns(
            disk, 10 * GIB, lambda: deploy(image, disk), lambda: run_durably(disk, *convert)
        )


BENCHMARK = Benchmark("copy", "s", 1.0, "qemu-img convert -m 16 -W, fsync", measure)
