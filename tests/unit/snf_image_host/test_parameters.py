"""The OS parameters: what each takes, and the one line that refuses the rest."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_ganeti.errors import InputError
from snf_image_helper.accounts import hash_password
from snf_image_host.os_parameters.checksum import Checksum
from snf_image_host.os_parameters.parameters import (
    Parameters,
    parse_parameters,
    require_supported,
    verify_parameters,
    verify_properties,
)
from snf_image_host.os_parameters.table import TABLE
from snf_image_host.settings import Settings

NEEDED = {"img_id": "debian", "img_format": "diskdump"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFm8VFNXhlUr1eMsTmZ2+XY3zCxPsH1wbJGD5ANyGWfD"
DIGEST = hashlib.sha256(b"").hexdigest()


def parse(**raw: str) -> Parameters:
    return parse_parameters({**NEEDED, **raw})


def refuse(**raw: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(**raw)
    return str(caught.value)


def test_what_is_needed_is_enough() -> None:
    assert parse() == Parameters("debian", "diskdump")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("img_id", "https://example.org/a.img?x=1&y", "https://example.org/a.img?x=1&y"),
        ("img_format", "qcow2", "qcow2"),
        ("img_passwd", "pass: wörd'\"$", "pass: wörd'\"$"),
        ("img_passwd_hash", "!", "!"),
        ("img_passwd_hash", "*", "*"),
        ("img_properties", '{"users": "a"}', {"USERS": "a"}),
        ("auth_keys", KEY, KEY + "\n"),
        ("os_product_key", "abcde-12345-FGHIJ-67890-KLMNO", "ABCDE-12345-FGHIJ-67890-KLMNO"),
        ("os_answer_file", "https://user:pw@example.org/x", "https://user:pw@example.org/x"),
        ("config_url", "http://[2001:db8::1]:8080/x", "http://[2001:db8::1]:8080/x"),
        ("cloud_userdata", "I2Nsb3Vk\nLWNvbmZpZw==", b"#cloud-config"),
        ("img_checksum", f"SHA256:{DIGEST.upper()}", Checksum("sha256", DIGEST)),
        ("img_luks_key", "open sesame", "open sesame"),
    ],
)
def test_a_value_is_parsed(name: str, text: str, value: Any) -> None:
    assert getattr(parse(**{name: text}), name) == value


@pytest.mark.parametrize("method", ["md5", "sha1", "blowfish", "sha256", "sha512", "yescrypt"])
def test_hashes_of_libcrypt_are_hashes(method: str) -> None:
    hashed = hash_password("x", method)
    assert parse(img_passwd_hash=hashed).img_passwd_hash == hashed
    assert refuse(img_passwd_hash=hashed[:-1]).startswith("OS parameter img_passwd_hash: it does")


def test_a_hash_of_gost_yescrypt_is_a_hash() -> None:
    assert parse(img_passwd_hash="$gy" + hash_password("x", "yescrypt")[2:]).img_passwd_hash


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("img_id", "a\nb", "it is unprintable or too long; give the name of an image, or its URL"),
        ("img_format", "s3cr3t", "it is not a known format; give one of diskdump, extdump"),
        ("img_format", "QCOW2", "it is not a known format"),
        ("img_passwd", "s3cr3t\n", "it holds a line end"),
        ("img_passwd", "s3cr3t\0", "it holds a line end"),
        ("img_passwd", "s3cr3t" * 100, "is longer than 511 bytes; give one line of text"),
        ("img_passwd", "s3cr3t\udcff", "it is not UTF-8"),
        ("img_passwd_hash", "s3cr3t", "it does not have the form of crypt(5)"),
        ("img_passwd_hash", "$6$salt$s3cr3t", "it does not have the form of crypt(5)"),
        ("img_passwd_hash", "!:0:0", "it does not have the form of crypt(5)"),
        ("img_passwd_hash", "!\n", "it does not have the form of crypt(5)"),
        ("img_properties", '{"a": s3cr3t}', "it is not valid JSON"),
        ("inst_properties", "[]", "it is not a JSON object"),
        ("img_personality", '[{"path": "x", "contents": ""}]', "file 1: its path is not absolute"),
        ("auth_keys", "s3cr3t", "line 1 is not an SSH public key"),
        ("os_product_key", "s3cr3-t", "it is not five groups of five"),
        ("os_answer_file", "file:///etc/s3cr3t", "it is neither an http or https URL nor"),
        ("os_answer_file", "ftp://example.org/s3cr3t", "it is neither an http or https URL"),
        ("config_url", "https://u:s3cr3t@[x", "it is neither an http or https URL"),
        ("config_url", "https:///s3cr3t", "it is neither an http or https URL"),
        ("config_url", "/etc/../s3cr3t", "its path has a .. in it"),
        ("cloud_userdata", "s3cr3t", "it is not base64; give base64"),
        ("img_checksum", DIGEST, "it is not an algorithm and its digest; give sha256:<64"),
        ("img_checksum", f"sha512:{DIGEST}", "it is not an algorithm and its digest"),
        ("img_checksum", f"sha1:{DIGEST[:40]}", "it is not an algorithm and its digest"),
        ("img_checksum", f"sha256:{DIGEST[:-1]}g", "it is not an algorithm and its digest"),
        ("img_luks_key", "s3cr3t\n", "it holds a line end"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_refusal_names_parameter_and_reason_and_quotes_nothing(
    name: str, text: str, reason: str
) -> None:
    line = refuse(**{name: text})
    assert line.startswith(f"OS parameter {name}: ")
    assert reason in line
    assert "s3cr3t" not in line


@given(st.sampled_from([row.name for row in TABLE]), st.text(max_size=40))
def test_any_text_is_a_value_or_refused(name: str, text: str) -> None:
    try:
        parse_parameters({**NEEDED, name: text})
    except InputError as error:
        assert f"OS parameter {name}" in str(error)


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_and_missing_is_named(name: str) -> None:
    assert refuse(**{name: ""}).startswith(f"OS parameter {name} is missing; give ")


def test_a_parameter_that_is_none_is_named() -> None:
    assert refuse(img_pasword="s3cr3t").startswith("'img_pasword' is no OS parameter; known are")


def test_two_passwords_exclude_each_other() -> None:
    line = refuse(img_passwd="s3cr3t", img_passwd_hash="!")
    assert line == "OS parameters img_passwd and img_passwd_hash exclude each other"


def test_the_instances_properties_are_over_the_images() -> None:
    found = parse(img_properties='{"users": "a", "x": "1"}', inst_properties='{"USERS": "b"}')
    assert found.properties == {"USERS": "b", "X": "1"}


def test_an_empty_parameter_is_absent() -> None:
    assert parse(**{row.name: "" for row in TABLE if row.name not in NEEDED}) == parse()


@pytest.mark.parametrize(
    "raw",
    [
        {"cloud_userdata": "eA=="},
        {"config_url": "https://example.org/x"},
        {"img_luks_key": "s3cr3t"},
        {"os_answer_file": "https://example.org/x"},
        {"os_product_key": "ABCDE-12345-FGHIJ-67890-KLMNO"},
    ],
)
def test_what_this_version_can_not_do_is_said_before_a_deployment(raw: dict[str, str]) -> None:
    (name,) = raw
    with pytest.raises(InputError) as caught:
        require_supported(parse(**raw))
    expected = f"OS parameter {name}: this version does not support it; leave it out"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("properties", "refused"),
    [
        ('{"OSFAMILY": "windows"}', True),
        ('{"OSFAMILY": "Linux"}', False),
        ('{"OSFAMILY": "windows", "EXCLUDE_MOUNTED_TASKS": "yes"}', False),
        ('{"OSFAMILY": "windows", "EXCLUDE_ALL_TASKS": true}', False),
    ],
)
def test_a_family_that_it_does_not_customize_is_deployed_without_that(
    properties: str, refused: bool
) -> None:
    match = "OSFAMILY is windows, and this version customizes linux only"
    parameters = parse(img_properties=properties)
    if refused:
        with pytest.raises(InputError, match=match):
            require_supported(parameters)
    else:
        require_supported(parameters)


def test_verify_looks_at_the_properties_as_they_apply(tmp_path: Path) -> None:
    settings = Settings(variants_dir=tmp_path)
    bad = {**NEEDED, "img_properties": '{"SWAP": "s3cr3t"}'}
    with pytest.raises(InputError, match="property SWAP does not fit") as caught:
        verify_parameters(bad, "default", settings)
    assert "s3cr3t" not in str(caught.value)
    verify_parameters({**bad, "inst_properties": '{"SWAP": "2:64"}'}, "default", settings)


def test_the_properties_alone_need_no_other_parameter(tmp_path: Path) -> None:
    settings = Settings(variants_dir=tmp_path)
    raw = {"img_properties": '{"a": "1", "b": "1"}', "inst_properties": '{"B": "2"}', "x": "y"}
    assert verify_properties(raw, "default", settings) == {"A": "1", "B": "2"}
    with pytest.raises(InputError, match="img_properties: it is not valid JSON"):
        verify_properties({"img_properties": "{"}, "default", settings)


def test_what_it_can_do_is_supported() -> None:
    require_supported(parse(img_passwd="x", auth_keys=KEY, img_checksum=f"sha256:{DIGEST}"))


def test_a_path_is_under_the_sites_folder(tmp_path: Path) -> None:
    settings = Settings(variants_dir=tmp_path, answer_file_dir=Path("/srv/answers"))
    inside = {**NEEDED, "os_answer_file": "/srv/answers/a.xml"}
    assert verify_parameters(inside, "default", settings).os_answer_file == "/srv/answers/a.xml"
    for outside in ("/etc/shadow", "/srv/answers-of-others/a.xml", "//srv/answers/a.xml"):
        with pytest.raises(InputError, match="os_answer_file: its path is not under /srv/answers"):
            verify_parameters({**NEEDED, "os_answer_file": outside}, "default", settings)


def test_a_variant_presets_and_the_user_wins(tmp_path: Path) -> None:
    preset = '[parameters]\nimg_format = "extdump"\nimg_passwd_hash = "!"\n'
    (tmp_path / "small.toml").write_text(preset)
    settings = Settings(variants_dir=tmp_path)
    found = verify_parameters({"img_id": "x"}, "small", settings)
    assert (found.img_format, found.img_passwd_hash) == ("extdump", "!")
    assert verify_parameters(NEEDED, "small", settings).img_format == "diskdump"
