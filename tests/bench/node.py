"""A node with the installed packages and a helper, for benchmarks."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from testbed import guests
from testbed.bed import open_bed
from testbed.roots import BUILD
from testbed.snf_image import Node, powered_node

LAYOUT = "mbr-primary"


@contextlib.contextmanager
def open_node() -> Iterator[Node]:
    """A node of its own, on for the block; it has the image LAYOUT."""
    debs = sorted((BUILD / "deb").glob("*.deb"))
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as work,
        open_bed(f"bench-{os.getpid()}", debs=debs) as bed,
        powered_node(bed, Path(work)) as node,
    ):
        guests.build(guests.LAYOUTS[LAYOUT], node.work / f"images/{LAYOUT}.raw")
        yield node
