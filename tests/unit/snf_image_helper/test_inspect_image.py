"""What an inspection makes of a guest's files."""

from pathlib import Path

from snf_image_helper.guest import Guest
from snf_image_helper.tasks.inspect_image import find_people, find_properties
from snf_image_helper.tree import Tree

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
ann:x:1000:1000:Ann:/home/ann:/bin/zsh
bob:x:1001:1001::/home/bob:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
odd:x:many:1::/:/bin/sh
short:x:1002
"""


def test_people_are_those_that_can_log_in() -> None:
    assert find_people(PASSWD) == ["root", "ann"]


def test_a_crowd_is_cut() -> None:
    rows = "".join(f"u{uid}:x:{uid}:1::/:/bin/sh\n" for uid in range(1000, 3000))
    assert len(find_people(rows)) == 20


def test_a_guest_tells_what_it_is(tmp_path: Path) -> None:
    for kernel in ("6.1.0-1-amd64", "5.10.0-9-amd64"):
        (tmp_path / "usr/lib/modules" / kernel).mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    release = {"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux 12"}
    assert find_properties(Guest(Tree(str(tmp_path)), "linux", release)) == {
        "OSFAMILY": "linux",
        "OS": "debian",
        "DESCRIPTION": "Debian GNU/Linux 12",
        "KERNEL": "5.10.0-9-amd64 6.1.0-1-amd64",
        "USERS": "root ann",
    }


def test_a_guest_that_says_nothing_is_its_family(tmp_path: Path) -> None:
    found = find_properties(Guest(Tree(str(tmp_path)), "linux", {}))
    assert found == {"OSFAMILY": "linux", "DESCRIPTION": "linux"}
