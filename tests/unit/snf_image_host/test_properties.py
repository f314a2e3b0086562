"""Image properties: JSON in, text out."""

import pytest

from snf_image_host.os_parameters.properties import (
    check_properties,
    find_doubtful_flags,
    is_set,
    parse_properties,
)


def test_names_are_upper_case_and_values_text() -> None:
    text = (
        '{"Users": "root debian", "SWAP": "2:512", "root_partition": 1, "x": 1.50,'
        ' "EXCLUDE_ALL_TASKS": false, "y": true, "z": "", "big": 123456789012345678901234567890}'
    )
    assert parse_properties(text) == {
        "USERS": "root debian",
        "SWAP": "2:512",
        "ROOT_PARTITION": "1",
        "X": "1.50",
        "EXCLUDE_ALL_TASKS": "false",
        "Y": "true",
        "Z": "",
        "BIG": "123456789012345678901234567890",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "it is not a JSON object"),
        ('"USERS"', "it is not a JSON object"),
        ('{"USERS": ["root"]}', "property USERS is neither text, a number, true nor false"),
        ('{"users": {}}', "property USERS is neither"),
        ('{"USERS": null}', "property USERS is neither"),
        ('{"USERS": "a", "Users": "b"}', "property USERS is there twice"),
        ('{"USERS": "a", "USERS": "b"}', "an object has the same key twice"),
        ('{"USERS": "a\\u0000b"}', "property USERS holds a null byte"),
        ('{"": "a"}', "a property's name is empty"),
        ('{"a\\n": "a"}', "a property's name is empty, unprintable"),
        ('{"x": NaN}', "NaN is not JSON"),
    ],
)
def test_what_is_no_property_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_properties(text)


@pytest.mark.parametrize("word", ["yes", "TRUE", " on ", "1", "Set", "no", "off", "0", "unset", ""])
def test_a_flag_with_a_word_is_clear(word: str) -> None:
    assert find_doubtful_flags({"EXCLUDE_ALL_TASKS": word, "EXCLUDE_TASK_ADDSWAP": word}) == []


def test_a_flag_with_anything_else_is_doubtful_and_other_properties_are_not() -> None:
    given = {"EXCLUDE_ALL_TASKS": "maybe", "EXCLUDE_TASK_ADDSWAP": "2", "USERS": "maybe"}
    assert find_doubtful_flags(given) == ["EXCLUDE_ALL_TASKS", "EXCLUDE_TASK_ADDSWAP"]


@pytest.mark.parametrize(
    ("name", "fit", "unfit"),
    [
        ("OSFAMILY", ["linux", "Windows", ""], ["plan9", "linuxx"]),
        ("ROOT_PARTITION", ["1", "12"], ["0", "-1", "sda1", "1000"]),
        ("USERS", ["root", " root  debian ", "_x$"], ["a,b", "-x", "a/b"]),
        ("SWAP", ["2:512", "b", "aa"], ["a", "0:5", "2:0", "2:", "2:5G", "/dev/sdb"]),
        ("PASSWD_HASHING_METHOD", ["SHA512", "yescrypt"], ["des", "sha"]),
    ],
)
def test_a_known_property_fits_or_is_named(name: str, fit: list[str], unfit: list[str]) -> None:
    for value in fit:
        check_properties({name: value})
    for value in unfit:
        with pytest.raises(ValueError, match=f"^property {name} does not fit: "):
            check_properties({name: value, "OTHER": value})


@pytest.mark.parametrize(("value", "expected"), [("yes", True), ("2", True), (" Off ", False)])
def test_a_flag_is_set_unless_it_says_no(value: str, expected: bool) -> None:
    assert is_set({"X": value}, "X") is expected
    assert is_set({}, "X") is False
