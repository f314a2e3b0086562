"""`snf-image inspect`: what is in an image, without touching it. Needs root.

What it should say is what the guests were made with.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from snf_ganeti import process
from testbed.snf_image import ANY_STATUS, Node

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def inspect(node: Node, image: str, *options: str) -> tuple[int, Mapping[str, Any], str]:
    """Status, document and what was said last."""
    argv = ("snf-image", "inspect", "--json", *options, image)
    done = node.machine.run(*argv, timeout=300, ok=ANY_STATUS)
    return done.status, json.loads(done.text), done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize(("layout", "partition"), [("mbr-primary", "1"), ("mbr-logical", "5")])
def test_it_says_what_is_in_an_image(node: Node, layout: str, partition: str) -> None:
    image = node.work / f"images/{layout}.raw"
    before = hashlib.sha256(image.read_bytes()).digest()
    status, document, _ = inspect(node, image.name)
    assert (status, document["status"], document["reason"]) == (0, "ok", None)
    properties = document["properties"]
    assert properties["ROOT_PARTITION"] == partition
    assert properties["OSFAMILY"] == "linux"
    assert properties["DESCRIPTION"] == "Debian GNU/Linux 12 (bookworm)"
    assert properties["USERS"] == "root debian"
    assert hashlib.sha256(image.read_bytes()).digest() == before


def test_a_container_that_is_compressed_needs_its_format(node: Node) -> None:
    raw, packed = node.work / "images/mbr-primary.raw", node.work / "images/packed.vmdk.zst"
    container = node.work / "packed.vmdk"
    stream = ("-o", "subformat=streamOptimized")
    process.run(["qemu-img", "convert", "-O", "vmdk", *stream, str(raw), str(container)])
    process.run(["zstd", "-q", str(container), "-o", str(packed)])
    container.unlink()
    try:
        status, document, _ = inspect(node, packed.name, "--format=vmdk")
        assert (status, document["properties"]["ROOT_PARTITION"]) == (0, "1")
        status, document, last = inspect(node, packed.name)
        assert (status, document["properties"]) == (2, {})
        assert "no root file system found" in document["reason"] in last
    finally:
        packed.unlink()


def test_what_is_not_there_is_one_line(node: Node) -> None:
    status, document, last = inspect(node, "absent.raw")
    assert status == 2
    assert last == f"error: {document['reason']}"
    assert "No such file" in last
    assert inspect(node, "null")[2].startswith("error: null is no image")
