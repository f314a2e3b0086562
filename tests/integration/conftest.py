"""Real services for the tests of this folder, started once and gone at the end of the run."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from hostile.arena import Arena, open_arena
from testbed import appliance, guests, images, snf_image
from testbed.bed import Bed, open_bed
from testbed.ceph import Ceph, start_ceph
from testbed.deadline import wait_for
from testbed.deployed import IMAGES, make_settings, write_settings
from testbed.ganeti import Cluster, create_cluster
from testbed.guests import LAYOUTS
from testbed.machine import Bind
from testbed.roots import BUILD
from testbed.snf_image import Node
from testbed.volumes import make_site, prepare_node

BINDS = (appliance.BIND, Bind(images.FOLDER, IMAGES))


@pytest.fixture(scope="session")
def root() -> None:
    """Namespaces and mounts are made by root; without it a test fails, and says why."""
    if os.geteuid() != 0:
        pytest.fail("this test needs root: sudo make test", pytrace=False)


@pytest.fixture(scope="session")
def bed(root: None) -> Iterator[Bed]:
    """A bed whose machines have the packages of build/deb installed."""
    for bind in BINDS:
        bind.source.mkdir(parents=True, exist_ok=True)
    debs = sorted((BUILD / "deb").glob("*.deb"))
    with open_bed(f"test-{os.getpid()}", debs=debs, binds=BINDS) as opened:
        yield opened


@pytest.fixture(scope="session")
def cluster(bed: Bed) -> Cluster:
    """A Ganeti cluster of one node; see `testbed.ganeti`."""
    return create_cluster(bed)


@pytest.fixture(scope="session")
def ceph(cluster: Cluster) -> Ceph:
    """A Ceph cluster on the same wire, with the pools and keys of a site; the Ganeti cluster's
    node has what a node needs of it."""
    ceph = start_ceph(cluster.bed)
    make_site(ceph, cluster.node)
    prepare_node(ceph, cluster.node)
    return ceph


@pytest.fixture(scope="session")
def deployer(cluster: Cluster) -> Cluster:
    """The cluster, its node able to deploy the cached images: helper built, settings made."""
    appliance.build(cluster.bed)
    write_settings(cluster.node, make_settings())
    return cluster


@pytest.fixture(scope="session")
def node(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A machine that deploys the small guests with the installed packages; see `Node`."""
    with snf_image.powered_node(bed, tmp_path_factory.mktemp("node")) as node:
        for name, layout in LAYOUTS.items():
            guests.build(layout, node.work / f"images/{name}.raw")
        yield node


@pytest.fixture(scope="session")
def arenas(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Arena]]:
    """Two machines for hostile images: most of a deployment is one emulated processor."""
    appliance.build(bed)
    with contextlib.ExitStack() as stack:
        folders = [tmp_path_factory.mktemp("arena") for _ in range(2)]
        yield [stack.enter_context(open_arena(bed, folder.name, folder)) for folder in folders]


@pytest.fixture
def nothing_is_left(node: Node) -> Iterator[None]:
    """Whatever a test does, no process, mount or file of it stays in the node."""
    before = node.list_leftovers()
    yield
    # What was killed is gone when the node's first process has buried it.
    wait_for(
        "the end of all that the test started",
        lambda: node.list_leftovers() <= before,
        seconds=60,
        explain=lambda: f"left: {node.list_leftovers() - before}",
    )
