"""passwd, shadow and hashes; hashes are judged by mkpasswd's and openssl's library, crypt(3)."""

import ctypes

import pytest

from snf_ganeti.password_hash import is_hash
from snf_image_helper.accounts import find_group, find_user, hash_password, set_password
from snf_image_helper.task import TaskFailed

PASSWD = "# odd\nroot:x:0:0:root:/root:/bin/bash\n\nbroken\nann:x:1000:100::/home/ann:/bin/sh\n"


@pytest.mark.parametrize("method", ["md5", "sha1", "blowfish", "sha256", "sha512", "yescrypt"])
def test_a_hash_verifies_against_its_password_and_no_other(method: str) -> None:
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    hashed = hash_password("pä ss:$", method)
    assert is_hash(hashed)
    assert crypt("pä ss:$".encode(), hashed.encode()).decode() == hashed
    assert crypt(b"other", hashed.encode()).decode() != hashed
    assert hash_password("pä ss:$", method) != hashed


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(TaskFailed, match="PASSWD_HASHING_METHOD=rot13 is not one of md5"):
        hash_password("x", "rot13")


def test_users_and_groups_are_found_by_exact_name() -> None:
    user = find_user(PASSWD, "ann")
    assert (user.uid, user.gid, user.home) == (1000, 100, "/home/ann")
    assert find_group("root:x:0:\nusers:x:100:ann\n", "users") == 100
    with pytest.raises(TaskFailed, match="user an does not exist in /etc/passwd"):
        find_user(PASSWD, "an")
    with pytest.raises(TaskFailed, match="group user does not exist"):
        find_group("users:x:100:ann\n", "user")


def test_only_the_hash_and_its_day_change() -> None:
    old = "root:*:19000:1:99:7:14:20000:\n\nodd\nann:!:1::::::\nroot:!:2\n+::::::::\udcff"
    new = set_password(old, "root", "HASH", 20000)
    assert new == (
        "root:HASH:20000:1:99:7:14:20000:\n\nodd\nann:!:1::::::\nroot:HASH:20000\n+::::::::\udcff"
    )


@pytest.mark.parametrize("old", ["ann:!:1::::::\n", "ann:!:1::::::"])
def test_a_user_without_a_line_gets_one(old: str) -> None:
    expected = "ann:!:1::::::\nroot:HASH:20000:0:99999:7:::\n"
    assert set_password(old, "root", "HASH", 20000) == expected


@pytest.mark.parametrize("uid", ["", "x", "-1", "4294967295", str(2**64), "9" * 5000, "²"])
def test_an_id_that_the_kernel_does_not_take_is_none(uid: str) -> None:
    with pytest.raises(TaskFailed, match="user root has no numeric id"):
        find_user(f"root:x:{uid}:0::/root:/bin/sh\n", "root")
    with pytest.raises(TaskFailed, match="group root does not exist"):
        find_group(f"root:x:{uid}:\n", "root")
