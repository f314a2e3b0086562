"""What the tests of volumes share, made once: nodes, an image that boots, names of volumes."""

import uuid
from collections.abc import Iterator

import pytest

from testbed.ceph import Ceph
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.volumes import (
    PUBLISHER,
    install_blank_os,
    prepare_node,
    publish,
    run_script,
)

# xor ax,ax; mov dx,0x3f8; next: out dx,al; inc ax; mov cx,0; loop $; jmp next
COUNTER = bytes.fromhex("31c0 baf803 ee 40 b90000 e2fe ebf7").ljust(510, b"\0") + b"\x55\xaa"


@pytest.fixture(scope="session")
def node(cluster: Cluster, ceph: Ceph) -> Machine:
    """The cluster's node, which publishes, too, with an OS definition that leaves the disk as
    it is."""
    install_blank_os(cluster.node)
    ceph.install_client(cluster.node, PUBLISHER)
    return cluster.node


@pytest.fixture(scope="session")
def other(cluster: Cluster, ceph: Ceph) -> Iterator[Machine]:
    """A second node, which Ganeti does not know."""
    machine = cluster.bed.power_on_node(2)
    prepare_node(ceph, machine)
    yield machine
    machine.power_off()


@pytest.fixture(scope="session")
def golden(ceph: Ceph) -> str:
    """An image of 8 MiB that boots, and counts on the serial port."""
    return publish(ceph, "counter", COUNTER, size=8)


@pytest.fixture
def volume(node: Machine) -> Iterator[str]:
    """The name of a volume that is to be made, removed after the test."""
    name = f"{uuid.uuid4()}.ext.disk0"
    yield name
    run_script(node, "detach", name)
    run_script(node, "remove", name)
