"""How much of a node's memory a copy takes. Needs root.

The kernel is asked by mincore(2), while the copy goes on, what of the disk is in the page cache:
what waits to be written is part of that.
"""

import ctypes
import mmap
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_image_host.confinement.jail import Jail
from snf_image_host.customization import make_durable
from snf_image_host.environ import Disk
from snf_image_host.image import ImageOrder, open_image
from snf_image_host.settings import Settings
from snf_image_host.targets import open_target

pytestmark = pytest.mark.usefixtures("root")

MIB = 1 << 20
DATA = 640 * MIB
LIMIT = 5 * 64 * MIB
JAIL = Jail(64998, 64997)
LOWEST_BIT = bytes(byte & 1 for byte in range(256))

_libc = ctypes.CDLL(None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    piece = os.urandom(MIB)
    with (tmp_path / "image").open("wb") as image:
        for index in range(DATA // MIB):
            image.write(index.to_bytes(8, "big") + piece[8:])
    return tmp_path


@pytest.fixture(params=["file", "device"])
def disk(request: pytest.FixtureRequest, folder: Path) -> Iterator[Path]:
    path = folder / "disk"
    with path.open("wb") as file:
        file.truncate(DATA + MIB)
    if request.param == "file":
        yield path
        return
    argv = ["losetup", "--find", "--show", "--direct-io=on", str(path)]
    device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def read_cached(pages: mmap.mmap) -> int:
    """Bytes of a mapped file or device in the page cache."""
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    found = ctypes.create_string_buffer(len(pages) // mmap.PAGESIZE)
    assert not _libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(pages)), found)
    return found.raw.translate(LOWEST_BIT).count(1) * mmap.PAGESIZE


def test_a_copy_takes_no_more_of_the_page_cache_than_its_buffer(folder: Path, disk: Path) -> None:
    seen, over = [0], threading.Event()
    with disk.open("r+b") as file:
        pages = mmap.mmap(file.fileno(), DATA)

    def watch() -> None:
        while not over.wait(0.02):
            seen.append(read_cached(pages))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with (
            open_image(ImageOrder("image", "diskdump"), Settings(image_dir=folder), JAIL) as image,
            open_target(Disk(0, 0, path=str(disk)), JAIL) as target,
        ):
            image.copy_to(target, lambda position, total: None)
            seen.append(read_cached(pages))
            make_durable([target])
    finally:
        over.set()
        watcher.join()
    assert 0 < max(seen) <= LIMIT, [each // MIB for each in seen]
    subprocess.run(["cmp", f"--bytes={DATA}", folder / "image", disk], check=True)
