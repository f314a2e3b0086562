"""What is a hash, what locks an account, and what is neither."""

import pytest

from snf_ganeti.password_hash import is_hash, is_lock

MD5 = "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/"


@pytest.mark.parametrize("text", ["", "!", "*", "x", "$6$short", "$6$salt$a:b", "$9$a$b", "plain"])
def test_what_is_no_hash(text: str) -> None:
    assert not is_hash(text)


def test_a_hash_with_a_line_end_is_none() -> None:
    assert is_hash(MD5)
    assert not is_hash(MD5 + "\n")


@pytest.mark.parametrize("text", ["!", "!!", "*", "!*"])
def test_what_locks(text: str) -> None:
    assert is_lock(text)


@pytest.mark.parametrize("text", ["", "x", "!x", "!\n", "**", "*!", f"!{MD5}", MD5])
def test_what_does_not_lock(text: str) -> None:
    assert not is_lock(text)
