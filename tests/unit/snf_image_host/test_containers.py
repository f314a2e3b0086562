"""What is refused of a container by our reading of its header, before QEMU sees it."""

import re
from pathlib import Path

import pytest

from hostile import qcow2, vhd, vhdx, vmdk
from hostile.attack import MIB, Attack, Make
from hostile.containers import copied_by_qemu
from snf_image_host.formats.container import Layout, ReadLayout, make_check_argv, make_node
from snf_image_host.formats.image_bytes import ImageBytes, Unfetched, read_file
from snf_image_host.formats.qcow2 import read_qcow2
from snf_image_host.formats.vhd import read_vhd
from snf_image_host.formats.vhdx import read_vhdx
from snf_image_host.formats.vmdk import read_vmdk

pytestmark = pytest.mark.spawn  # qemu-img makes what is then harmed

SIZE = 4 * MIB
READERS = {"qcow2": read_qcow2, "vmdk": read_vmdk, "vhd": read_vhd, "vhdx": read_vhdx}
BY_OTHERS = {
    *("qcow2-l1-huge", "qcow2-l1-beyond", "qcow2-l1-header", "qcow2-l2-header"),
    *("qcow2-refcount-huge", "qcow2-refcount-order", "qcow2-snapshots", "qcow2-header-length"),
    *("qcow2-extension-huge", "qcow2-cut-tables"),
    *("vmdk-grain-beyond", "vmdk-stream-grain", "vhd-block-beyond"),
    *("vhdx-regions-checksum", "vhdx-cut"),
}
"""Attacks whose header is sound: QEMU finds what is wrong, in its jail."""
TOO_LARGE = "needs a disk of"
ATTACKS = {
    each.name: each
    for each in (*qcow2.ATTACKS, *vmdk.ATTACKS, *vhd.ATTACKS, *vhdx.ATTACKS)
    if each.name not in BY_OTHERS
}


def read(attack: Attack, folder: Path) -> Layout:
    return read_made(attack.make, READERS[attack.format], folder)


def read_made(make: Make, reader: ReadLayout, folder: Path) -> Layout:
    make(folder / "image")
    with (folder / "image").open("rb") as file:
        return reader(read_file(file.fileno()))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_by_a_header(name: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    try:
        found = read(attack, tmp_path).size
    except ValueError as error:
        assert attack.reason and re.search(attack.reason, str(error)), error
    else:
        assert found > 16 * MIB if attack.reason == TOO_LARGE else not attack.reason


@pytest.mark.parametrize(
    ("kind", "options", "driver"),
    [
        ("qcow2", (), "qcow2"),
        ("qcow2", ("compat=0.10",), "qcow2"),
        ("vmdk", ("subformat=monolithicSparse",), "vmdk"),
        ("vmdk", ("subformat=streamOptimized",), "vmdk"),
        ("vhd", ("subformat=dynamic", "force_size=on"), "vpc"),
        ("vhd", ("subformat=fixed", "force_size=on"), "raw"),
        ("vhdx", ("subformat=dynamic",), "vhdx"),
        ("vhdx", ("subformat=fixed",), "vhdx"),
    ],
)
def test_a_sound_container_tells_its_size(
    kind: str, options: tuple[str, ...], driver: str, tmp_path: Path
) -> None:
    make = copied_by_qemu("vpc" if kind == "vhd" else kind, *options)
    layout = read_made(make, READERS[kind], tmp_path)
    assert (layout.size, layout.driver) == (SIZE, driver)


def test_a_stream_of_which_the_footer_tells(tmp_path: Path) -> None:
    assert read_made(vmdk.make_stream, read_vmdk, tmp_path).size == SIZE


@pytest.mark.parametrize(("kind", "size"), [("qcow2", SIZE), ("vmdk", SIZE), ("vhdx", None)])
def test_what_its_first_bytes_tell(kind: str, size: int | None, tmp_path: Path) -> None:
    """The rest is still on its way."""
    copied_by_qemu(kind)(tmp_path / "image")
    head = (tmp_path / "image").read_bytes()[: 64 << 10]
    image = ImageBytes(None, len(head), lambda start, length: head[start : start + length])
    if size is None:
        with pytest.raises(Unfetched):
            READERS[kind](image)
    else:
        assert READERS[kind](image).size == size


def test_a_read_is_bounded() -> None:
    image = ImageBytes(1 << 40, 1 << 40, lambda start, length: bytes(length))
    with pytest.raises(ValueError, match="a header of"):
        image.read(0, 1 << 30)


def test_qemu_is_told_the_format_and_that_nothing_lies_behind() -> None:
    layout = Layout(SIZE, "qcow2", {"backing": None})
    node = make_node(layout, 7)
    assert (node["driver"], node["backing"], node["read-only"]) == ("qcow2", None, True)
    assert node["file"]["filename"] == "/dev/fd/7"
    assert node["file"]["read-only"] is True
    assert "driver=qcow2," in make_check_argv(layout, 7)[-1]
