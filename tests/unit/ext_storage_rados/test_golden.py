"""Sparse files and properties; publishing itself is tested on a real cluster."""

from pathlib import Path

import pytest

from ext_storage_rados.images.golden import find_data, parse_properties
from snf_ganeti.errors import InputError


def test_only_data_is_read(tmp_path: Path) -> None:
    size = 64 << 20
    with (tmp_path / "image").open("w+b") as file:
        file.truncate(size)
        for offset in (0, 40 << 20):
            file.seek(offset)
            file.write(b"x" * 4096)
        file.flush()
        found = list(find_data(file.fileno(), size))
    covered = [(offset, offset + length) for offset, length in found]
    for offset in (0, 40 << 20):
        assert any(start <= offset < end for start, end in covered)
    assert sum(length for _, length in found) < size // 4
    assert all(length <= 4 << 20 for _, length in found)


def test_an_empty_file_has_no_data(tmp_path: Path) -> None:
    with (tmp_path / "image").open("w+b") as file:
        assert list(find_data(file.fileno(), 0)) == []
        file.truncate(1 << 20)
        assert list(find_data(file.fileno(), 1 << 20)) == []


def test_properties() -> None:
    assert parse_properties(["osfamily=linux", "USERS=root debian", "X="]) == {
        "OSFAMILY": "linux",
        "USERS": "root debian",
        "X": "",
    }
    for text in ("osfamily", "a b=c", "=x"):
        with pytest.raises(InputError, match="is no property; write KEY=VALUE"):
            parse_properties([text])
