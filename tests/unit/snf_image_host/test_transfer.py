"""A disk's dump: what goes in comes out, tar unpacks it, and no damage passes for a disk."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snf_ganeti import process
from snf_ganeti.errors import InputError, NodeError
from snf_image_host import transfer
from snf_image_host.copying.dump import DumpReader, make_head, make_piece_head
from snf_image_host.helper_vm.vm import VmDisk
from snf_image_host.transfer import make_dump, measure_dump, restore_dump

BLOCK = 4096


class MemoryDisk:
    """A disk in memory that may be told to break."""

    name = "the disk"

    def __init__(self, content: bytes, *, blank: bool = False) -> None:
        self.content = bytearray(content)
        self.blank = blank
        self.broken = False

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def vm_disk(self) -> VmDisk:
        return VmDisk("file", 0)

    def erase(self) -> bool:
        if self.blank:
            self.content[:] = bytes(self.size)
        return self.blank

    def share(self, file: int, length: int) -> bool:
        return False

    def write(self, start: int, data: memoryview) -> None:
        self._break()
        assert start + len(data) <= self.size
        self.content[start : start + len(data)] = data

    def zero(self, start: int, length: int) -> None:
        assert start + length <= self.size
        self.content[start : start + length] = bytes(length)

    def _break(self) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")

    def flush(self) -> None:
        pass

    def find_data(self) -> Iterator[tuple[int, int]]:
        yield 0, self.size

    def read_into(self, start: int, buffer: memoryview) -> int:
        self._break()
        data = self.content[start : start + len(buffer)]
        buffer[: len(data)] = data
        return len(data)


def dump(content: bytes) -> bytes:
    return b"".join(make_dump(MemoryDisk(content)))


def restore(dumped: bytes, disk: MemoryDisk, least: int = 0) -> bytes:
    restore_dump(io.BufferedReader(io.BytesIO(dumped)), disk, least)  # type: ignore[arg-type]  # BytesIO is a raw stream, too
    return bytes(disk.content)


def make_content(*parts: int) -> bytes:
    """Runs of so many bytes, of zeros and of something else in turns."""
    data = [bytes(n) if at % 2 == 0 else os.urandom(n - 1) + b"x" for at, n in enumerate(parts)]
    return b"".join(data)


CONTENTS = {
    "zeros": bytes(64 << 10),
    "data": make_content(0, 64 << 10),
    "hole": make_content(BLOCK, 3 * BLOCK, 5 * BLOCK),
    "odd": make_content(BLOCK, 5, 3 * BLOCK, 700),
    "many": make_content(*(BLOCK for _ in range(200))),
    "empty": b"",
}


@pytest.fixture(params=[1, 3 * BLOCK, 8 << 20])
def piece_limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE_LIMIT", request.param)


@pytest.mark.usefixtures("piece_limit")
@pytest.mark.parametrize("blank", [True, False])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=list(CONTENTS))
def test_what_goes_in_comes_out_over_old_data(content: bytes, blank: bool) -> None:
    old = MemoryDisk(b"\xa5" * len(content), blank=blank)
    assert restore(dump(content), old) == content


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3 * BLOCK), max_size=8))
def test_any_disk_comes_back(parts: list[int]) -> None:
    content = b"".join(bytes(n) if at % 2 else b"\xff" * n for at, n in enumerate(parts))
    assert restore(dump(content), MemoryDisk(b"\xa5" * len(content))) == content


@pytest.mark.spawn
@pytest.mark.usefixtures("piece_limit")
@pytest.mark.parametrize("content", CONTENTS.values(), ids=list(CONTENTS))
def test_tar_unpacks_it(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "dump"
    file.write_bytes(dump(content))
    assert process.run(["tar", "--extract", "--to-stdout", f"--file={file}"]).stdout == content
    process.run(["tar", "--extract", f"--file={file}", f"--directory={tmp_path}"])
    pieces = sorted(tmp_path.glob("disk.*"))
    assert b"".join(piece.read_bytes() for piece in pieces) == content
    with tarfile.open(file) as archive:
        assert [member.name for member in archive] == [piece.name for piece in pieces]


def test_zeros_are_not_in_it() -> None:
    assert len(dump(bytes(64 << 20))) < 10 << 10
    content = make_content(1 << 20, BLOCK, 1 << 20)
    assert len(dump(content)) < 3 * BLOCK
    assert measure_dump(MemoryDisk(content)) == len(content)


def test_a_plain_dump_is_taken_as_the_disks_bytes() -> None:
    content = make_content(2 << 20, BLOCK, 5 * BLOCK)
    assert restore(content, MemoryDisk(b"\xa5" * len(content)), len(content)) == content
    larger = restore(content, MemoryDisk(b"\xa5" * (len(content) + 999)), len(content))
    assert larger == content + bytes(999)


@pytest.mark.parametrize(
    "content",
    [tarfile.TarInfo("a").tobuf(), b"\xa5" * 512, b"\x55\xaa"],
    ids=["tar", "data", "short"],
)
def test_a_disk_that_begins_like_an_archive_is_a_plain_dump(content: bytes) -> None:
    reader = DumpReader(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]
    assert reader.size is None


def test_a_disk_that_begins_with_a_global_header_of_others_is_a_plain_dump() -> None:
    content = tarfile.TarInfo.create_pax_global_header({"comment": "abcdef"}) + b"x" * 5000
    assert restore(content, MemoryDisk(bytes(len(content)))) == content


def test_a_dump_of_a_dump_is_a_disk_with_a_dump_on_it() -> None:
    content = dump(CONTENTS["hole"])
    assert restore(dump(content), MemoryDisk(bytes(len(content)))) == content


@pytest.mark.parametrize("share", [n / 17 for n in range(17)])
def test_a_dump_that_is_cut_off_is_refused(share: float) -> None:
    content = make_content(BLOCK, 20 * BLOCK, BLOCK)
    whole = dump(content)
    cut = whole[: int(len(whole) * share)]
    # Less than the head is nothing that tells it from a disk; Ganeti says how large that was.
    with pytest.raises(InputError, match=r"the dump (ends|is)"):
        restore(cut, MemoryDisk(bytes(len(content))), len(content))


def test_a_plain_dump_that_is_cut_off_names_the_way_out() -> None:
    with pytest.raises(InputError, match="ends after 600 of 1000 bytes; if it is whole, import"):
        restore(b"\xeb" * 600, MemoryDisk(bytes(1000)), 1000)


@pytest.mark.parametrize("plain", [True, False])
def test_data_behind_the_disks_end_is_refused_and_zeros_are_not(plain: bool) -> None:
    content = make_content(0, BLOCK, 2 * BLOCK)
    assert restore(content if plain else dump(content), MemoryDisk(bytes(BLOCK))) == content[:BLOCK]
    content = make_content(BLOCK, BLOCK)
    with pytest.raises(InputError, match="data at byte 4096, and the disk has only 4096 bytes"):
        restore(content if plain else dump(content), MemoryDisk(bytes(BLOCK)))


def test_a_disk_that_can_not_be_written_is_named() -> None:
    disk = MemoryDisk(b"x" * BLOCK)
    disk.broken = True
    with pytest.raises(NodeError, match=r"the disk can't be written at byte 0: Input/output error"):
        restore(dump(b"x" * BLOCK), disk)


def test_a_disk_that_can_not_be_read_is_named() -> None:
    disk = MemoryDisk(b"x" * BLOCK)
    disk.broken = True
    with pytest.raises(NodeError, match="the disk can't be read: Input/output error"):
        list(make_dump(disk))


def damage(*changes: tuple[bytes, bytes]) -> bytes:
    data = dump(make_content(BLOCK, BLOCK, BLOCK))
    for old, new in changes:
        assert old in data and len(old) == len(new)
        data = data.replace(old, new)
    return data


TABLE = b"2\n4096\n4096\n12288\n0\n"
DAMAGED = {
    "larger than the disk": damage((b"realsize=12288", b"realsize=99999")),
    "size is no number": damage((b"realsize=12288", b"realsize=1228x")),
    "no size": damage((b"GNU.sparse.realsize", b"GNU.sparse.realsixe")),
    "too many extents": damage((TABLE, b"9" + TABLE[1:])),
    "no number": damage((TABLE, b"2\n4096\n4096\n1288x\n0\n")),
    "behind the end": damage((TABLE, b"2\n4096\n4096\n99999\n0\n")),
    "not ascending": damage((TABLE, b"2\n8192\n4096\n11111\n0\n")),
    "no table": damage((TABLE, b"9" * len(TABLE))),
    "no pieces": make_head(BLOCK) + bytes(1024),
    "noise for a piece": make_head(BLOCK) + b"\xa5" * 512,
    "half a piece": make_head(BLOCK) + make_piece_head(0, BLOCK, [])[512:] + bytes(1024),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=list(DAMAGED))
def test_a_damaged_dump_is_refused(damaged: bytes) -> None:
    with pytest.raises(InputError, match=r"the dump (is|ends|has)|of the dump (is|has)"):
        restore(damaged, MemoryDisk(bytes(3 * BLOCK)))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_hostile_bytes_are_a_disk_or_refused(noise: bytes, at: int) -> None:
    data = bytearray(dump(make_content(BLOCK, BLOCK, BLOCK)))
    data[at : at + len(noise)] = noise
    try:
        restore(bytes(data), MemoryDisk(bytes(1 << 20)))
    except InputError as error:
        assert "\n" not in str(error)
