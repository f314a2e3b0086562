"""The mounted guest: its tree, and what kind of system it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from snf_image_helper.tree import Tree


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
