"""The guest's hosts file."""

import pytest

from snf_image_helper.hosts import rename_hosts

LOCAL = "127.0.0.1\tlocalhost\n"


@pytest.mark.parametrize(
    ("text", "old", "everywhere", "expected"),
    [
        ("", "", False, "127.0.1.1\tweb.x.org web\n"),
        (LOCAL, "debian", False, LOCAL + "127.0.1.1\tweb.x.org web\n"),
        (
            LOCAL + "127.0.1.1\tdebian extra # mine\n::1 ip6-localhost\n",
            "debian",
            False,
            LOCAL + "127.0.1.1\tweb.x.org web extra\n::1 ip6-localhost\n",
        ),
        ("10.0.0.1 debian\n", "debian", False, "127.0.1.1\tweb.x.org web\n10.0.0.1 debian\n"),
        (
            LOCAL + "127.0.1.1\told.x.org old\n10.0.0.1  old.x.org\told older # old\n",
            "old.x.org",
            True,
            LOCAL + "127.0.1.1\tweb.x.org web\n10.0.0.1  web.x.org\tweb older # old\n",
        ),
        (LOCAL + "# old\n", "localhost", True, LOCAL + "127.0.1.1\tweb.x.org web\n# old\n"),
    ],
)
def test_own_line_and_old_name(text: str, old: str, everywhere: bool, expected: str) -> None:
    assert rename_hosts(text, old, "web.x.org", everywhere=everywhere) == expected


def test_a_short_name_stands_once() -> None:
    assert rename_hosts("", "", "web", everywhere=False) == "127.0.1.1\tweb\n"


def test_the_second_time_changes_nothing() -> None:
    once = rename_hosts(LOCAL, "debian", "web.x.org", everywhere=False)
    assert rename_hosts(once, "web.x.org", "web.x.org", everywhere=True) == once
