"""Capabilities: a node reads images and never writes them."""

from ext_storage_rados.keys import make_node_capabilities, make_publisher_capabilities
from ext_storage_rados.settings import Settings


def test_a_node_only_reads_images() -> None:
    settings = Settings(pool="vms", namespace="team", data_pool="ec")
    assert make_node_capabilities(settings)["osd"] == (
        "profile rbd pool=vms namespace=team, profile rbd-read-only pool=images, "
        "profile rbd pool=ec"
    )


def test_a_publisher_writes_images_and_makes_snapshots_of_volumes() -> None:
    assert make_publisher_capabilities(Settings()) == {
        "mon": "profile rbd",
        "mgr": "profile rbd",
        "osd": "profile rbd pool=images, profile rbd pool=ganeti",
    }
