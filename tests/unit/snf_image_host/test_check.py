"""Findings about a node."""

from pathlib import Path

import pytest

from snf_ganeti.errors import NodeError, SettingsError
from snf_image_host import check
from snf_image_host.check import Finding, check_node, parse_available
from snf_image_host.settings import Settings


def test_available_memory_is_read_in_bytes() -> None:
    text = "MemTotal:       24000000 kB\nMemAvailable:   2048 kB\n"
    assert parse_available(text) == 2 << 20
    assert parse_available("MemTotal: 1 kB\n") == 0


def test_every_check_is_made_whatever_the_others_find(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(site: Settings) -> str:
        raise NodeError("not installed: qemu-img", hint="reinstall")

    monkeypatch.setattr(check, "CHECKS", {"tools": fail, "spool": lambda site: "free"})
    monkeypatch.setattr("snf_image_host.settings.read", Settings)
    assert list(check_node())[1:] == [
        Finding("tools", reason="not installed: qemu-img; reinstall"),
        Finding("spool", "free"),
    ]


def test_without_settings_nothing_else_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Settings:
        raise SettingsError("x.toml: unknown key a")

    monkeypatch.setattr("snf_image_host.settings.read", fail)
    assert list(check_node()) == [Finding("settings", reason="x.toml: unknown key a")]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    site = Settings(image_dir=tmp_path / "images", spool_dir=tmp_path / "spool")
    with pytest.raises(NodeError, match=r"image_dir .*/images is not a folder"):
        check.CHECKS["images"](site)
    with pytest.raises(NodeError, match=r"spool_dir .*/spool can't be used: No such file"):
        check.CHECKS["spool"](site)


def test_what_the_cache_holds_is_told(tmp_path: Path) -> None:
    site = Settings(cache_dir=tmp_path / "cache", cache_size=100)
    look = check.CHECKS["cache"]
    assert look(site) == f"{site.cache_dir}, 0 images, 0 of 100 MiB"
    site.cache_dir.mkdir()
    (site.cache_dir / f"sha256-{64 * 'a'}").write_bytes(bytes(3 << 20))
    (site.cache_dir / f"sha256-{64 * 'b'}.part").write_bytes(bytes(5 << 20))
    (site.cache_dir / "lock").touch()
    assert look(site) == f"{site.cache_dir}, 1 images, 3 of 100 MiB"
    assert look(Settings(cache_size=0)) == "none: cache_size is 0"
    (tmp_path / "file").touch()
    assert "can't be used" in look(Settings(cache_dir=tmp_path / "file"))


def test_a_helper_that_is_larger_than_the_node_is_refused() -> None:
    with pytest.raises(NodeError, match="MiB of memory are left, and the helper takes 1000"):
        check.CHECKS["memory"](Settings(helper_memory=999_999_999))
