"""What the benchmarks of the copy share: images, a disk, and our way from one to the other."""

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from snf_image_host.confinement.jail import Jail
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target
from testbed.roots import BUILD

MIB, GIB = 1 << 20, 1 << 30
JAIL = Jail(64998, 64997)
"""Ids that nobody has: the packages, whose user it would be, are not installed here."""
_RUNS = 3


@contextlib.contextmanager
def make_folder() -> Iterator[Path]:
    """A scratch folder on the disk that build/ is on."""
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=BUILD) as name:
        yield Path(name)


def make_image(path: Path, size: int, data: int) -> None:
    """A sparse disk image with so many bytes of data, in pieces of 64 KiB to 4 MiB."""
    dice = random.Random(1)
    with path.open("wb") as file:
        file.truncate(size)
        while data > 0:
            length = min(data, dice.randrange(64 << 10, 4 * MIB) // 4096 * 4096)
            file.seek(dice.randrange(size - length) // 4096 * 4096)
            file.write(os.urandom(length))
            data -= length
        os.fsync(file.fileno())


def deploy(image: Path, disk: Path) -> None:
    """Our copy, durable at its end."""
    with (
        open_image(
            ImageOrder(image.name, "diskdump"), Settings(image_dir=image.parent), JAIL
        ) as it,
        open_target(Disk(0, 0, path=str(disk)), JAIL) as target,
    ):
        it.copy_to(target, lambda position, total: None)
        target.flush()


def run_durably(disk: Path, *argv: str | Path, shell: bool = False) -> None:
    """The peer's copy; ours ends with fsync, so its does, too."""
    subprocess.run(["sh", "-c", argv[0]] if shell else argv, check=True)
    with disk.open("rb") as file:
        os.fsync(file.fileno())


def measure_in_turns(
    disk: Path, size: int, ours: Callable[[], None], peers: Callable[[], None]
) -> tuple[Sequence[float], Sequence[float]]:
    """Seconds of each run onto a new sparse disk; a first run of each warms the cache."""
    figures: tuple[list[float], list[float]] = ([], [])
    for _ in range(_RUNS + 1):
        for figure, copy in zip(figures, (ours, peers), strict=True):
            disk.unlink(missing_ok=True)
            disk.touch()
            os.truncate(disk, size)
            begun = time.monotonic()
            copy()
            figure.append(time.monotonic() - begun)
    return figures[0][1:], figures[1][1:]
