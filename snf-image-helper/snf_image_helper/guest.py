"""The mounted guest: its tree, and what kind of system it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from snf_image_helper.tree import Tree

_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")


@dataclass(frozen=True)
class Guest:
    """A guest's root file system, mounted.

    family: "linux", "freebsd", "openbsd", "netbsd" or "windows". release: the fields of
    os-release, names in upper case as they stand there.
    """

    tree: Tree
    family: str
    release: Mapping[str, str]

    @property
    def likes(self) -> tuple[str, ...]:
        """The distribution's ID and those it says it is like, nearest first."""
        return (self.release.get("ID", ""), *self.release.get("ID_LIKE", "").split())

    @property
    def name(self) -> str:
        return self.release.get("PRETTY_NAME") or self.release.get("ID") or self.family


def read_guest(tree: Tree) -> Guest:
    """Look at a Linux guest; without an os-release its fields are empty. Raises TreeError."""
    path = next((path for path in _OS_RELEASE if tree.is_file(path)), None)
    return Guest(tree, "linux", parse_release(tree.read_text(path, 64 << 10)) if path else {})


def parse_release(text: str) -> dict[str, str]:
    """os-release(5): NAME=value a line, the value in quotes or not; odd lines are left out."""
    fields = (line.strip().partition("=") for line in text.splitlines())
    return {
        name: value.strip("\"'") for name, equals, value in fields if equals and name.isidentifier()
    }
