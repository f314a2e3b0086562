"""The files of variants, right and wrong."""

from pathlib import Path

import pytest

from snf_ganeti.errors import InputError, SettingsError
from snf_image_host.os_parameters.variant import read_variant


@pytest.mark.parametrize("variant", ["", "default"])
def test_the_default_variant_needs_no_file(tmp_path: Path, variant: str) -> None:
    assert read_variant(variant, tmp_path / "absent") == {}


@pytest.mark.parametrize("variant", ["../x", "a/b", ".x", "a b", "x\n"])
def test_a_variant_is_a_plain_name(tmp_path: Path, variant: str) -> None:
    (tmp_path / "x.toml").write_text("")
    with pytest.raises(InputError, match="is no name of a variant"):
        read_variant(variant, tmp_path / "folder")


def test_a_variant_that_is_not_set_up_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"variant tiny is not set up on this node: .*tiny\.toml"):
        read_variant("tiny", tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("parameters", "is not valid TOML"),
        ("parameters = 1", "parameters must be a table"),
        ('img_id = "x"', "unknown key img_id; known here: parameters"),
        ('[parameters]\nimg = "s3cr3t"', "unknown key parameters.img; known here: img_id, img"),
        ("[parameters]\nimg_properties = {SWAP = 1}", "parameters.img_properties must be a string"),
    ],
)
def test_a_variants_file_that_is_wrong_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "default.toml").write_text(text)
    with pytest.raises(SettingsError, match=reason) as caught:
        read_variant("default", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/default.toml")
    assert "s3cr3t" not in str(caught.value)
