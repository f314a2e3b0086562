"""The guest's fstab."""

import pytest

from snf_image_helper.fstab import Entry, add_line, parse_fstab, parse_source


def test_entries_are_read_with_their_escapes() -> None:
    text = '# c\n\nUUID="ab"  /  ext4\nLABEL=my\\040disk /a\\040b xfs ro,nofail 0 2\nodd\n'
    assert parse_fstab(text) == [
        Entry("UUID=ab", "/", "ext4", ("defaults",)),
        Entry("LABEL=my disk", "/a b", "xfs", ("ro", "nofail")),
    ]


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("UUID=1 / ext4", True),
        ("/dev/vda1 /boot ext2", True),
        ("/dev/mapper/vg-home /home ext4", True),
        ("PARTLABEL=x /srv auto nofail", True),
        ("UUID=1 none swap sw", False),
        ("UUID=1 /x ext4 noauto", False),
        ("UUID=1 /x ext4 _netdev", False),
        ("server:/x /x nfs", False),
        ("//server/x /x cifs", False),
        ("tmpfs /tmp tmpfs", False),
        ("/srv/a /srv/b none bind", False),
        ("/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto", False),
        ("UUID=1 relative ext4", False),
    ],
)
def test_what_is_mounted(line: str, local: bool) -> None:
    assert parse_fstab(line)[0].is_local is local


def test_subvolumes_are_kept_and_other_options_are_not() -> None:
    entry = parse_fstab("UUID=1 /home btrfs suid,dev,subvol=@home,compress=zstd 0 0")[0]
    assert entry.subvolume == ("subvol=@home",)


@pytest.mark.parametrize(
    ("source", "tag"),
    [
        ("UUID=a-b", ("uuid", "a-b")),
        ("LABEL=x=y", ("label", "x=y")),
        ("PARTUUID=12-01", ("partuuid", "12-01")),
        ("PARTLABEL=root", ("partlabel", "root")),
        ("/dev/disk/by-uuid/a-b", ("uuid", "a-b")),
        ("/dev/disk/by-label/my\\x20disk", ("label", "my disk")),
        ("/dev/sda1", None),
        ("UUID=", None),
        ("ID=3", None),
        ("/dev/disk/by-path/pci-1", None),
    ],
)
def test_sources_by_tag(source: str, tag: tuple[str, str] | None) -> None:
    assert parse_source(source) == tag


def test_a_line_is_added_and_nothing_else_changes() -> None:
    assert add_line("a \udcff", "b") == "a \udcff\nb\n"
    assert add_line("a\n", "b") == "a\nb\n"
    assert add_line("", "b") == "b\n"
