"""The saved state on disk: what is kept, what fits, and what is found to be damaged."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snf_ganeti.errors import NodeError
from snf_image_host.helper_vm.appliance import Appliance, Manifest
from snf_image_host.helper_vm.saved_state import (
    SavedState,
    make_conditions,
    read_state,
    remove_state,
    verify_state,
    write_state,
)

MIB = 1 << 20
CONDITIONS = {"QEMU": "/usr/bin/qemu 1 2", "memory size": "4"}
DEVICES = b"devices" * 1000
PIECES = {0: b"first", MIB: b"\0" * 70000 + b"middle", 4 * MIB - 4: b"last"}


@pytest.fixture
def ram() -> Iterator[int]:
    """4 MiB of memory with holes, zeros that are no hole, and content at both ends."""
    with open(os.memfd_create("ram"), "w+b") as file:
        os.truncate(file.fileno(), 4 * MIB)
        os.pwrite(file.fileno(), bytes(MIB), 2 * MIB)
        for start, data in PIECES.items():
            os.pwrite(file.fileno(), data, start)
        yield file.fileno()


@pytest.fixture
def appliance(tmp_path: Path) -> Appliance:
    return Appliance(tmp_path, Manifest(1, "bookworm", "6.1", {}, {}))


@pytest.fixture
def state(appliance: Appliance, ram: int) -> SavedState:
    return write_state(appliance, CONDITIONS, ram, DEVICES)


def restore_memory(state: SavedState) -> bytes:
    with open(os.memfd_create("ram"), "w+b") as file:
        os.truncate(file.fileno(), state.memory_size)
        state.read_memory(file.fileno())
        return file.read()


def test_what_is_read_is_what_was_written(
    appliance: Appliance, state: SavedState, ram: int
) -> None:
    read = read_state(appliance, CONDITIONS)
    assert read == state
    assert restore_memory(read) == os.pread(ram, 4 * MIB, 0)
    assert read.read_devices() == DEVICES
    verify_state(read)


def test_zeros_are_not_kept(state: SavedState) -> None:
    assert sum(extent.length for extent in state.extents) < MIB
    assert (state.folder / "memory").stat().st_size < MIB


def test_only_root_can_read_it(state: SavedState) -> None:
    assert state.folder.stat().st_mode & 0o777 == 0o700


def test_another_state_takes_its_place(appliance: Appliance, state: SavedState, ram: int) -> None:
    os.pwrite(ram, b"other", 3 * MIB)
    write_state(appliance, CONDITIONS, ram, DEVICES)
    assert read_state(appliance, CONDITIONS).name != state.name
    assert [path.name for path in appliance.folder.iterdir()] == ["state"]


def test_a_build_that_was_killed_is_no_hindrance(appliance: Appliance, ram: int) -> None:
    (appliance.folder / ".state/new").mkdir(parents=True)
    write_state(appliance, CONDITIONS, ram, DEVICES)
    verify_state(read_state(appliance, CONDITIONS))


def test_without_a_state_it_says_so(appliance: Appliance, state: SavedState) -> None:
    remove_state(appliance)
    with pytest.raises(NodeError, match="no state of the helper was saved"):
        read_state(appliance, CONDITIONS)


@pytest.mark.parametrize(
    ("conditions", "name"),
    [
        ({**CONDITIONS, "QEMU": "/usr/bin/qemu 1 3"}, "QEMU"),
        ({**CONDITIONS, "memory size": "8"}, "memory size"),
        ({**CONDITIONS, "processor": "x"}, "processor"),
        ({"QEMU": CONDITIONS["QEMU"]}, "memory size"),
    ],
)
def test_a_state_of_another_machine_is_refused(
    appliance: Appliance, state: SavedState, conditions: dict[str, str], name: str
) -> None:
    with pytest.raises(NodeError, match=f"another {name}"):
        read_state(appliance, conditions)


@pytest.mark.parametrize("name", ["memory", "devices"])
@pytest.mark.parametrize("damage", ["bit", "short", "empty", "long", "gone"])
def test_damage_is_found(state: SavedState, name: str, damage: str) -> None:
    path = state.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    written = {"bit": data, "short": data[:-1], "empty": b"", "long": data + b"x"}.get(damage)
    path.unlink()
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(NodeError, match=r"damaged|can't be read"):
        verify_state(state)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: json.dumps({**json.loads(text), "extents": [[0]]}),
        lambda text: json.dumps({**json.loads(text), "surprise": 1}),
        lambda text: json.dumps({**json.loads(text), "conditions": None}),
    ],
)
def test_a_damaged_record_is_found(
    appliance: Appliance, state: SavedState, change: Callable[[str], str]
) -> None:
    record = state.folder / "state.json"
    record.write_text(change(record.read_text()))
    with pytest.raises(NodeError, match="damaged"):
        read_state(appliance, CONDITIONS)


def test_what_a_state_depends_on(appliance: Appliance) -> None:
    emulated = make_conditions(appliance, "tcg", 512)
    assert emulated != make_conditions(appliance, "tcg", 768)
    assert "processor" not in emulated  # nothing of this node's is seen inside
    assert {"processor", "kernel"} <= make_conditions(appliance, "kvm", 512).keys()
