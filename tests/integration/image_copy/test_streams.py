"""Compressed streams that are cut, damaged, or hold more than the disk."""

import subprocess
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from testbed.image_copy import COMPRESSORS, ERASED, MIB, SIZE, deploy


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("cut", [20, 0.5, 0.999])
def test_a_truncated_stream_is_told(
    folder: Path, tmp_path: Path, disk: Path, name: str, cut: float
) -> None:
    whole = (folder / f"raw.{name}").read_bytes()
    length = int(cut if cut > 1 else cut * len(whole))
    (tmp_path / "cut").write_bytes(whole[:length])
    with pytest.raises(InputError, match=f"image cut is no sound {name} stream: .*"):
        deploy(tmp_path, disk, "cut", "diskdump")


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_damaged_stream_is_told(folder: Path, tmp_path: Path, disk: Path, name: str) -> None:
    broken = bytearray((folder / f"raw.{name}").read_bytes())
    for at in range(len(broken) // 2, len(broken) // 2 + 64):
        broken[at] ^= 0x55
    (tmp_path / "broken").write_bytes(broken)
    with pytest.raises(InputError, match="image broken is no sound"):
        deploy(tmp_path, disk, "broken", "diskdump")


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("kind", ["diskdump", "qcow2"])
def test_a_bomb_stops_at_the_size_of_the_disk(
    folder: Path, tmp_path: Path, disk: Path, name: str, kind: str
) -> None:
    """Five times the disk out of a few KiB."""
    head = (folder / "qcow2").read_bytes()[:MIB] if kind == "qcow2" else b"MBR"
    script = f"{{ cat; head -c {5 * SIZE} /dev/zero; }} | {' '.join(COMPRESSORS[name])} -c"
    with (tmp_path / "bomb").open("wb") as file:
        subprocess.run(["sh", "-c", script], input=head, stdout=file, check=True)
    with pytest.raises(InputError, match=r"needs a disk of|more than the disk holds"):
        deploy(tmp_path, disk, "bomb", kind)
    assert disk.stat().st_size == SIZE + 2 * MIB


@pytest.mark.parametrize("name", ["xz", "zst"])
def test_a_stream_that_tells_its_size_is_refused_before_a_byte_is_written(
    folder: Path, tmp_path: Path, name: str
) -> None:
    small = tmp_path / "small"
    small.write_bytes(ERASED * 4)
    packer = ["zstd", "-q"] if name == "zst" else COMPRESSORS[name]
    with (tmp_path / "packed").open("wb") as file:
        subprocess.run([*packer, "-c", folder / "raw"], stdout=file, check=True)
    with pytest.raises(InputError, match=f"packed needs a disk of {SIZE} bytes or more"):
        deploy(tmp_path, small, "packed", "diskdump")
    assert small.read_bytes() == ERASED * 4
