"""The helper's saved state: a helper VM of this node that has booted and waits to be woken.

It lies in the appliance's folder and goes with it:

    state/state.json    what it belongs to, and what the other files must hold
    state/memory        the guest's memory: its extents, one after the other
    state/devices       the devices, as QEMU writes them for a migration

A state belongs to the QEMU, the machine's options, the accelerator and the appliance that it
was made with; under KVM to the node's processor and kernel, too.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from snf_ganeti.errors import NodeError
from snf_image_host.copying.sparse_file import find_data
from snf_image_host.helper_vm.appliance import Appliance
from snf_image_host.helper_vm.vm import AcceleratorName, identify_qemu, make_fingerprint

DEVICES_LIMIT = 1 << 20
"""Bytes of the devices' state: what a pipe holds, so that QEMU can read it when it likes."""
_FOLDER, _RECORD, _MEMORY, _DEVICES = "state", "state.json", "memory", "devices"
_RECORD_LIMIT = 4 << 20
_STEP = 1 << 20
_GRAIN = 64 << 10
"""Bytes of the pieces in which memory is looked at; one of zeros is left out."""


@dataclass(frozen=True)
class Extent:
    """Bytes from `start` of the guest's memory."""

    start: int
    length: int


@dataclass(frozen=True)
class SavedState:
    """memory_size: bytes of the guest's memory. The checksums tell damage, not malice: who
    can write here is root."""

    folder: Path
    conditions: Mapping[str, str]
    memory_size: int
    extents: tuple[Extent, ...]
    memory_crc: int
    devices_crc: int

    @property
    def name(self) -> str:
        """The same state has the same name."""
        return f"{self.memory_crc:08x}{self.devices_crc:08x}"

    def read_devices(self) -> bytes:
        """Raises NodeError when they are damaged, OSError."""
        with (self.folder / _DEVICES).open("rb") as file:
            devices = file.read(DEVICES_LIMIT + 1)
        if zlib.crc32(devices) != self.devices_crc:
            raise NodeError(f"{self.folder / _DEVICES} is damaged")
        return devices

    def read_memory(self, ram: int) -> None:
        """Write the memory into the empty file `ram`. Raises NodeError when it is damaged,
        OSError."""
        crc = 0
        with (self.folder / _MEMORY).open("rb") as file, memoryview(bytearray(_STEP)) as buffer:
            for start, length in self._steps():
                piece = buffer[: file.readinto(buffer[:length])]
                crc = zlib.crc32(piece, crc)
                _write(ram, piece, start)
            whole = not file.read(1)
        if crc != self.memory_crc or not whole:
            raise NodeError(f"{self.folder / _MEMORY} is damaged")

    def _steps(self) -> Iterator[tuple[int, int]]:
        """Start and length of what is read at once."""
        for extent in self.extents:
            for at in range(0, extent.length, _STEP):
                yield extent.start + at, min(_STEP, extent.length - at)


def make_conditions(
    appliance: Appliance, accelerator: AcceleratorName, memory: int
) -> dict[str, str]:
    """What a state belongs to; memory: MiB."""
    return {
        "appliance": appliance.folder.name,
        "QEMU": identify_qemu(),
        "accelerator": accelerator,
        "memory size": str(memory),
        "machine": make_fingerprint(accelerator, memory),
        **(_identify_node() if accelerator == "kvm" else {}),
    }


def _identify_node() -> dict[str, str]:
    """What a guest sees of the node through KVM."""
    text = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    told = "".join(re.findall(r"^(?:vendor_id|model.*|flags|microcode)\s*:.*$", text, re.M))
    digest = hashlib.sha256(told.encode()).hexdigest()
    return {"processor": digest, "kernel": os.uname().release}


def read_state(appliance: Appliance, conditions: Mapping[str, str]) -> SavedState:
    """The appliance's state, if it fits. Raises NodeError, which says why it doesn't."""
    folder = appliance.folder / _FOLDER
    try:
        with (folder / _RECORD).open("rb") as file:
            state = _parse_record(folder, file.read(_RECORD_LIMIT))
    except FileNotFoundError:
        raise NodeError("no state of the helper was saved") from None
    except OSError as error:
        raise NodeError(f"the saved state can't be read: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NodeError(f"{folder / _RECORD} is damaged") from None
    for name in (*state.conditions, *conditions):
        if state.conditions.get(name) != conditions.get(name):
            raise NodeError(f"the saved state was made with another {name}")
    return state


def verify_state(state: SavedState) -> None:
    """Compare all of it with its checksums. Raises NodeError."""
    try:
        state.read_devices()
        with open(os.memfd_create("state"), "wb") as ram:
            state.read_memory(ram.fileno())
    except OSError as error:
        raise NodeError(f"the saved state can't be read: {error}") from None


def write_state(
    appliance: Appliance, conditions: Mapping[str, str], ram: int, devices: bytes
) -> SavedState:
    """Keep the memory in the file `ram` and the devices as the appliance's state; a state
    that was there goes. Raises OSError."""
    folder = appliance.folder / _FOLDER
    with _make_draft(folder) as draft:
        new = draft / "new"
        new.mkdir(mode=0o700)  # a generator of random numbers lies in there
        extents, memory_crc = _write_memory(ram, new / _MEMORY)
        (new / _DEVICES).write_bytes(devices)
        size = os.fstat(ram).st_size
        state = SavedState(folder, conditions, size, extents, memory_crc, zlib.crc32(devices))
        (new / _RECORD).write_text(_format_record(state))
        if folder.exists():
            folder.rename(draft / "old")
        new.rename(folder)
    return state


def remove_state(appliance: Appliance) -> None:
    """Have every run boot. Raises OSError."""
    shutil.rmtree(appliance.folder / _FOLDER)


@contextlib.contextmanager
def _make_draft(folder: Path) -> Iterator[Path]:
    draft = folder.with_name("." + folder.name)
    shutil.rmtree(draft, ignore_errors=True)  # a killed build's; the builder's lock is ours
    draft.mkdir(mode=0o700)
    try:
        yield draft
    finally:
        shutil.rmtree(draft)


def _write_memory(ram: int, path: Path) -> tuple[tuple[Extent, ...], int]:
    """The extents that are not zero, and the checksum of what was written."""
    extents: list[Extent] = []
    crc = 0
    with path.open("wb") as file:
        for start, piece in _read_pieces(ram):
            if extents and extents[-1].start + extents[-1].length == start:
                extents[-1] = Extent(extents[-1].start, extents[-1].length + len(piece))
            else:
                extents.append(Extent(start, len(piece)))
            crc = zlib.crc32(piece, crc)
            file.write(piece)
    return tuple(extents), crc


def _read_pieces(ram: int) -> Iterator[tuple[int, bytes]]:
    size = os.fstat(ram).st_size
    zeros = bytes(_GRAIN)
    for first, last in find_data(ram, size):
        for start in range(first - first % _GRAIN, last, _GRAIN):
            piece = os.pread(ram, min(_GRAIN, size - start), start)
            if piece != zeros[: len(piece)]:
                yield start, piece


def _write(descriptor: int, data: memoryview, start: int) -> None:
    at = 0
    while at < len(data):
        at += os.pwrite(descriptor, data[at:], start + at)


def _format_record(state: SavedState) -> str:
    fields = asdict(state)
    del fields["folder"]
    fields["extents"] = [(extent.start, extent.length) for extent in state.extents]
    return json.dumps(fields) + "\n"


def _parse_record(folder: Path, text: bytes) -> SavedState:
    fields = json.loads(text)
    fields["conditions"] = dict(fields["conditions"])
    fields["extents"] = tuple(Extent(int(start), int(size)) for start, size in fields["extents"])
    return SavedState(folder=folder, **fields)
