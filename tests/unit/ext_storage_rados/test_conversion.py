"""What an image's header may ask for, how it is read, and in which jail."""

import io
import json
import os
from pathlib import Path

import pytest

from ext_storage_rados.images.conversion import (
    Jail,
    check_end,
    check_header,
    copy,
    find_decompressor,
    make_convert_argv,
    make_jail_argv,
)
from snf_ganeti.errors import InputError

JAIL = Jail(user=123, group=124, spool=Path("/nowhere"), size=1 << 30)


def test_streams_are_told_by_their_first_bytes() -> None:
    assert find_decompressor(b"\x1f\x8b\x08\0") == "gzip"
    assert find_decompressor(b"\xfd7zXZ\0\0\4") == "xz"
    assert find_decompressor(b"\x28\xb5\x2f\xfd") == "zstd"
    assert find_decompressor(b"QFI\xfb") == find_decompressor(b"") == ""


def test_the_format_is_given() -> None:
    assert make_convert_argv("qcow2", 5, 6) == [
        *("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "/dev/fd/5", "/dev/fd/6"),
    ]


def test_the_jail_has_no_network_no_rights_and_limits() -> None:
    argv = make_jail_argv(JAIL, ["xz", "-dc"])
    text = " ".join(argv)
    assert "--unshare-net" in argv
    assert "--reuid=123 --regid=124 --clear-groups" in text
    assert "--no-new-privs" in argv
    assert f"--fsize={1 << 30}" in argv
    assert text.count("--bind ") == 0
    assert argv[-3:] == ["--", "xz", "-dc"]


@pytest.mark.parametrize(
    "header",
    [
        {"backing-filename": "/etc/shadow"},
        {"full-backing-filename": "/etc/shadow"},
        {"format-specific": {"data": {"data-file": "other.raw"}}},
    ],
)
def test_other_files_are_refused(header: dict[str, object]) -> None:
    with pytest.raises(InputError, match="the qcow2 image needs another file beside it"):
        check_header(json.dumps(header), "qcow2")


def test_encryption_is_refused_and_the_rest_is_not() -> None:
    with pytest.raises(InputError, match="is encrypted"):
        check_header('{"encrypted": true}', "qcow2")
    check_header('{"virtual-size": 1, "format-specific": {"data": {"compat": "1.1"}}}', "qcow2")


def test_a_file_that_ends_too_early_is_refused() -> None:
    check_end('{"image-end-offset": 100}', 100)
    check_end("{}", 0)
    with pytest.raises(InputError, match="the qcow2 image is cut off"):
        check_end('{"image-end-offset": 101}', 100)


def test_a_copy_is_whole_and_sparse(tmp_path: Path) -> None:
    content = b"a" * (1 << 20) + bytes(8 << 20) + b"b" + bytes(5)
    with (tmp_path / "copy").open("w+b") as target:
        copy(io.BytesIO(content), target, len(content))
        assert target.read() == content
        assert os.fstat(target.fileno()).st_blocks * 512 < 4 << 20


def test_a_copy_is_bounded(tmp_path: Path) -> None:
    with (
        (tmp_path / "copy").open("w+b") as target,
        pytest.raises(InputError, match="the image is larger than 1 MiB; see max_image_size"),
    ):
        copy(io.BytesIO(bytes(2 << 20)), target, 1 << 20)
