"""The cache of images and their forms."""

import gzip
import lzma
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from snf_ganeti.errors import InputError
from testbed import images
from testbed.images import RECIPES, build_form, find_recipe

CONTENT = b"\0" * 70000 + b"disk" * 1000 + b"\0" * 512
RECIPE = RECIPES["bookworm-mbr-ext4"]
READERS: dict[str, Callable[[Path], bytes]] = {
    "raw": Path.read_bytes,
    "gz": lambda path: gzip.decompress(path.read_bytes()),
    "xz": lambda path: lzma.decompress(path.read_bytes()),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which the raw image is there."""
    monkeypatch.setattr(images, "FOLDER", tmp_path)
    RECIPE.path.write_bytes(CONTENT)
    return tmp_path


@pytest.mark.parametrize("form", READERS)
def test_a_form_has_the_images_bytes(cache: Path, form: str) -> None:
    path = build_form(RECIPE, form)
    assert READERS[form](path) == CONTENT
    made = path.stat().st_ino
    assert build_form(RECIPE, form).stat().st_ino == made


@pytest.mark.parametrize("form", ["zst", "lz4", "qcow2"])
def test_a_form_is_what_its_own_tool_takes(cache: Path, form: str) -> None:
    test = {"zst": ["zstd", "--test"], "lz4": ["lz4", "--test"], "qcow2": ["qemu-img", "check"]}
    path = build_form(RECIPE, form)
    subprocess.run([*test[form], str(path)], check=True, capture_output=True)


def test_what_a_killed_build_left_is_not_taken_for_an_image(cache: Path) -> None:
    left = cache / ".draft-killed"
    left.mkdir()
    (left / f"{RECIPE.path.name}.gz").write_bytes(b"half")
    assert gzip.decompress(build_form(RECIPE, "gz").read_bytes()) == CONTENT
    assert not left.exists()


def test_a_build_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = dict(images._COMPRESSORS, gz=["gzip", "--no-such-option"])
    monkeypatch.setattr(images, "_COMPRESSORS", failing)
    before = sorted(path.name for path in cache.iterdir())
    with pytest.raises(Exception, match="gzip failed"):
        build_form(RECIPE, "gz")
    assert sorted(path.name for path in cache.iterdir()) == sorted([*before, ".lock"])


def test_another_recipe_is_another_file() -> None:
    assert replace(RECIPE, size=2000).path != RECIPE.path
    assert replace(RECIPE, packages=("less",)).path != RECIPE.path
    assert len({recipe.path for recipe in RECIPES.values()}) == len(RECIPES)
    assert len({recipe.machine_id for recipe in RECIPES.values()}) == len(RECIPES)


@pytest.mark.parametrize(("name", "form"), [("no-such", "raw"), ("bench", "zip")])
def test_unknown_names_are_refused_with_those_that_exist(name: str, form: str) -> None:
    with pytest.raises(InputError, match=r"no (image|form) named .*there are: "):
        build_form(find_recipe(name), form)
