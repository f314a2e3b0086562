"""The images, and disks that they go to; whatever a test does, no process of it stays."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.deadline import wait_for
from testbed.descendants import find_children
from testbed.image_copy import ERASED, MIB, SIZE, make_images, run


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in every form, of the same disk."""
    folder = tmp_path_factory.mktemp("images")
    make_images(folder)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk that is full of what its last owner left."""
    path = tmp_path / "disk"
    path.write_bytes(ERASED * ((SIZE // MIB) + 2))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 4 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path)
    yield path
    run("umount", path)


@pytest.fixture(autouse=True)
def _nothing_is_left(root: None) -> Iterator[None]:
    """Other tests' services may be running, and be this process's children."""
    children, descriptors = set(find_children(os.getpid())), count_descriptors()
    yield
    wait_for("children to be gone", lambda: set(find_children(os.getpid())) <= children, 30)
    # A web server's thread closes its connection when it sees that nobody reads.
    wait_for("descriptors to be closed", lambda: count_descriptors() <= descriptors, 30)


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
