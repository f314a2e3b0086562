"""The files that a user wants in the guest."""

import base64
import json
from typing import Any

import pytest

from snf_image_helper.protocol import PersonalityFile
from snf_image_host.os_parameters import personality
from snf_image_host.os_parameters.personality import parse_personality

SECRET = base64.b64encode(b"s3cr3t").decode()


def parse_one(**fields: Any) -> PersonalityFile:
    (file,) = parse_personality(json.dumps([{"path": "/etc/x", "contents": SECRET, **fields}]))
    return file


def test_a_file_as_the_predecessors_users_give_it() -> None:
    assert parse_one(owner="www-data", group="adm", mode=288) == PersonalityFile(
        "/etc/x", SECRET, "www-data", "adm", 0o440
    )


def test_what_is_left_out_is_roots_and_read_only() -> None:
    assert parse_one() == PersonalityFile("/etc/x", SECRET, "root", "root", 0o440)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0, 0), (420, 0o644), (4095, 0o7777), ("0644", 0o644), ("644", 0o644), ("0o4755", 0o4755)],
)
def test_a_mode_is_a_number_or_octal_text(mode: int | str, expected: int) -> None:
    assert parse_one(mode=mode).mode == expected


def test_contents_may_be_wrapped() -> None:
    data = bytes(range(256))
    file = parse_one(contents=base64.encodebytes(data).decode())
    assert base64.b64decode(file.contents, validate=True) == data
    assert parse_one(contents="").contents == ""


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"path": "etc/x"}, "its path is not absolute"),
        ({"path": ""}, "its path is not absolute"),
        ({"path": None}, "its path is missing or not text"),
        ({"path": "/etc/../x"}, "its path has a .. in it"),
        ({"path": "/etc/"}, "names a folder"),
        ({"path": "/etc/."}, "names a folder"),
        ({"path": "/etc/x\n"}, "unprintable"),
        ({"path": "/etc/\0"}, "unprintable"),
        ({"path": "/etc/\ud800"}, "unprintable"),
        ({"path": "/" + "x" * 256}, "too long"),
        ({"path": "/" + "ä" * 128}, "too long"),
        ({"path": "/x" * 2048}, "too long"),
        ({"contents": "s3cr3t"}, "its contents are not base64"),
        ({"contents": "äääää"}, "its contents are not base64"),
        ({"contents": 1}, "its contents is missing or not text"),
        ({"owner": "0"}, "its owner is not a name"),
        ({"owner": "root:x"}, "its owner is not a name"),
        ({"owner": None}, "its owner is missing or not text"),
        ({"group": ""}, "its group is not a name"),
        ({"group": "-x"}, "its group is not a name"),
        ({"mode": "288"}, "its mode is neither"),
        ({"mode": 4096}, "its mode is neither"),
        ({"mode": -1}, "its mode is neither"),
        ({"mode": True}, "its mode is neither"),
        ({"mode": 288.0}, "its mode is neither"),
        ({"mode": None}, "its mode is neither"),
        ({"mode": "77777"}, "its mode is neither"),
        ({"permissions": 1}, "unknown key 'permissions'; known are contents, group, mode"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_is_wrong_is_named_by_place_and_not_quoted(
    fields: dict[str, Any], reason: str
) -> None:
    files = [{"path": "/a", "contents": ""}, {"path": "/etc/x", "contents": SECRET, **fields}]
    with pytest.raises(ValueError, match=f"^file 2: .*{reason}") as caught:
        parse_personality(json.dumps(files))
    assert "s3cr3t" not in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["{}", '"x"', "1", "null"])
def test_what_is_no_array_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it is not a JSON array"):
        parse_personality(text)


def test_an_item_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="file 1: it is not a JSON object"):
        parse_personality("[[]]")


def test_number_and_size_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    file = {"path": "/x", "contents": base64.b64encode(bytes(512 << 10)).decode()}
    monkeypatch.setattr(personality, "COUNT_LIMIT", 3)
    monkeypatch.setattr(personality, "SIZE_LIMIT", 1 << 20)
    assert len(parse_personality(json.dumps([file] * 2))) == 2
    with pytest.raises(ValueError, match="its files are larger than 1 MiB together"):
        parse_personality(json.dumps([file] * 3))
    with pytest.raises(ValueError, match="it has more than 3 files"):
        parse_personality(json.dumps([file] * 4))
