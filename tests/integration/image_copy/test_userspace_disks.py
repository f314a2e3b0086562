"""Disks that are reached through a server of their own."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nbd
import pytest

from snf_ganeti.errors import NodeError
from snf_image_host.environ import Disk
from snf_image_host.targets import open_target
from testbed.deadline import wait_for
from testbed.image_copy import JAIL, MIB, deploy, require_same
from testbed.listening import UNIX_SOCKETS, is_listening


@pytest.fixture
def served(disk: Path, tmp_path: Path) -> Iterator[str]:
    """The disk as a userspace one, behind a server that only root may reach."""
    path = tmp_path / "nbd.sock"
    argv = ["qemu-nbd", "--format=raw", "--persistent", "--discard=unmap", f"--socket={path}"]
    with subprocess.Popen([*argv, disk]) as server:
        wait_for("qemu-nbd", lambda: is_listening(Path(UNIX_SOCKETS).read_text(), path), 30)
        path.chmod(0o600)
        yield f"nbd+unix:///?socket={path}"
        server.terminate()


def test_a_userspace_disk_is_written_and_read_through_its_server(
    folder: Path, served: str, disk: Path
) -> None:
    deploy(folder, served, "raw", "diskdump")
    require_same(folder, disk)
    assert disk.stat().st_blocks <= (folder / "raw").stat().st_blocks + 256
    with open_target(Disk(0, 0, uri=served), JAIL, writable=False) as target:
        assert target.size == disk.stat().st_size
        whole = bytearray(target.size)
        for start, end in target.find_data():
            view = memoryview(whole)[start:end]
            at = 0
            while at < len(view):
                at += target.read_into(start + at, view[at : at + MIB])
        assert whole == disk.read_bytes()
        with pytest.raises(OSError, match="Operation not permitted"):
            target.write(0, memoryview(b"x" * 512))


def test_the_helper_gets_a_connection_to_a_userspace_disk(served: str, disk: Path) -> None:
    with open_target(Disk(0, 0, uri=served), JAIL) as target:
        vm_disk = target.vm_disk
        assert vm_disk.kind == "nbd"
        client = nbd.NBD()
        client.connect_socket(os.dup(vm_disk.fd))
        client.pwrite(b"y" * 512, 4096)
        client.shutdown()
    assert disk.read_bytes()[4096 : 4096 + 512] == b"y" * 512


def test_a_userspace_disk_that_is_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"can't be reached: No such file"):
        deploy(folder, f"nbd+unix:///?socket={tmp_path}/absent", "raw", "diskdump")
    with pytest.raises(NodeError, match=r"can't be opened: .*refused"):
        deploy(folder, "nbd://127.0.0.1:1/", "raw", "diskdump")
