"""The most memory that the process of a copy ever has, for the largest kinds of images."""

import os
import subprocess
import sys
from pathlib import Path

from bench.benchmark import Benchmark, Runs
from bench.copying import GIB, make_folder, make_image

_LIMIT = 60.0
_PROGRAM = """
import sys
from pathlib import Path
from bench.copying import deploy
deploy(Path(sys.argv[1]), Path(sys.argv[2]))
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def measure() -> tuple[Runs, Runs]:
    with make_folder() as folder:
        image, disk = folder / "image", folder / "disk"
        make_image(image, 10 * GIB, GIB)
        subprocess.run(["zstd", "--quiet", "--fast", "-T0", image], check=True)
        disk.touch()
        os.truncate(disk, 10 * GIB)
        return [_measure_peak(each, disk) for each in (image, folder / "image.zst")], [_LIMIT]


def _measure_peak(image: Path, disk: Path) -> float:
    """MB; a new process, since what it had at most is kept over its whole life."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, image, disk],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    return int(done.stdout) * 1024 / 1e6


BENCHMARK = Benchmark("host-memory", "MB", 1.0, "the limit", measure)
