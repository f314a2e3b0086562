"""Memory of saved helpers: shared while anyone uses it, and changed by nobody."""

import contextlib
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snf_ganeti.errors import NodeError
from snf_image_host.helper_vm.appliance import Appliance, Manifest
from snf_image_host.helper_vm.guest_memory import share_memory
from snf_image_host.helper_vm.saved_state import SavedState, write_state

SIZE = 1 << 20
SIGN = "memory.open"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SavedState]:
    appliance = Appliance(tmp_path, Manifest(1, "bookworm", "6.1", {}, {}))
    with open(os.memfd_create("ram"), "w+b") as file:
        os.truncate(file.fileno(), SIZE)
        os.pwrite(file.fileno(), b"the helper", 4096)
        yield write_state(appliance, {}, file.fileno(), b"devices")


@contextlib.contextmanager
def shared(state: SavedState) -> Iterator[int]:
    with share_memory(state) as memory:
        memory.wait()
        yield memory.ram


def find_inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


def test_runs_at_the_same_time_share_it(state: SavedState) -> None:
    with shared(state) as first, shared(state) as second:
        assert os.pread(first, 10, 4096) == b"the helper"
        assert find_inode(first) == find_inode(second)


def test_it_outlives_the_run_that_read_it(state: SavedState) -> None:
    first, second = shared(state), shared(state)
    inode = find_inode(first.__enter__())
    second.__enter__()
    first.__exit__(None, None, None)
    with shared(state) as third:
        assert find_inode(third) == inode
    second.__exit__(None, None, None)


def test_nothing_is_left_of_it(state: SavedState) -> None:
    before = os.listdir("/proc/self/fd")
    with shared(state):
        pass
    assert os.listdir("/proc/self/fd") == before
    names = {path.name for path in state.folder.iterdir()}
    assert names == {"state.json", "memory", "devices", "lock"}


def test_who_comes_while_it_is_read_waits_and_shares_it(
    state: SavedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, may_end, inodes = threading.Event(), threading.Event(), set[int]()
    read_memory = SavedState.read_memory

    def read_slowly(self: SavedState, ram: int) -> None:
        reading.set()
        assert may_end.wait(10)
        read_memory(self, ram)

    def come() -> None:
        with shared(state) as ram:
            inodes.add(find_inode(ram))
            assert os.pread(ram, 10, 4096) == b"the helper"

    monkeypatch.setattr(SavedState, "read_memory", read_slowly)
    with share_memory(state) as first:
        assert reading.wait(10)  # while this block goes on: QEMU starts in it
        second = threading.Thread(target=come)
        second.start()
        may_end.set()
        first.wait()
        inodes.add(find_inode(first.ram))
        second.join(10)
    assert len(inodes) == 1


def test_nobody_can_change_it(state: SavedState) -> None:
    """Not even who opens it anew for writing, as QEMU does."""
    with shared(state) as ram:
        anew = os.open(f"/proc/self/fd/{ram}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(anew, b"x", 4096)
        with pytest.raises(PermissionError):
            os.truncate(anew, 0)
        with pytest.raises(PermissionError):
            mmap.mmap(anew, SIZE, flags=mmap.MAP_SHARED)
        with mmap.mmap(anew, SIZE, flags=mmap.MAP_PRIVATE) as own:
            own[4096:4099] = b"own"
        assert os.pread(ram, 10, 4096) == b"the helper"
        os.close(anew)


@pytest.mark.parametrize("kind", ["none", "gone", "file", "fifo", "writable", "other size"])
def test_a_sign_that_leads_elsewhere_is_not_followed(state: SavedState, kind: str) -> None:
    """A run was killed, and its number is another process's by now."""
    name = f"snf-image-helper-{state.name}"
    other = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.truncate(other, SIZE // 2 if kind == "other size" else SIZE)
    fifo, plain = state.folder / "fifo", state.folder / "plain"
    os.mkfifo(fifo)
    plain.write_bytes(bytes(SIZE))
    target = {
        "gone": Path("/proc/4194305/fd/3"),
        "file": plain,
        "fifo": fifo,
        "writable": Path(f"/proc/self/fd/{other}"),
        "other size": Path(f"/proc/self/fd/{other}"),
    }.get(kind)
    if target is not None:
        (state.folder / SIGN).symlink_to(target)
    with shared(state) as ram:
        assert find_inode(ram) != find_inode(other)
        assert os.pread(ram, 10, 4096) == b"the helper"
    os.close(other)


def test_damaged_memory_is_shared_with_nobody(state: SavedState) -> None:
    path = state.folder / "memory"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    before = os.listdir("/proc/self/fd")
    for _ in range(2):
        with pytest.raises(NodeError, match="damaged"), shared(state):
            pass
    assert os.listdir("/proc/self/fd") == before
    assert not (state.folder / SIGN).is_symlink()
