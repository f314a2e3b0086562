"""A probe of a helper VM: all it could talk to."""

import errno
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from testbed import probe

_SYS = Path("/sys")
_ADDRESSES = ("10.0.2.2", "169.254.169.254", "192.0.2.1", "10.78.0.1")
_SHARES = ("9p", "virtiofs", "nfs", "nfs4", "cifs")


def look_around() -> dict[str, Any]:
    shares = (line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines())
    return {
        "interfaces": list_names("class/net"),
        "routes": Path("/proc/net/route").read_text().splitlines()[1:],
        "connections": {address: connect(address) for address in _ADDRESSES},
        "vsock": make_socket(socket.AF_VSOCK),
        "virtio": [
            int(text[len("virtio:d") :][:8], 16)
            for text in read_all("bus/virtio/devices/*/modalias")
        ],
        "pci": [text[2:] for text in read_all("bus/pci/devices/*/class")],
        "ports": list(read_all("class/virtio-ports/*/name")),
        "disks": list_names("class/block"),
        "shares": [name for name in shares if name in _SHARES],
    }


def list_names(folder: str) -> list[str]:
    return sorted(path.name for path in (_SYS / folder).iterdir())


def read_all(pattern: str) -> Iterable[str]:
    return (path.read_text().strip() for path in sorted(_SYS.glob(pattern)))


def connect(address: str) -> str:
    with socket.socket() as ours:
        ours.settimeout(2)
        try:
            ours.connect((address, 22))
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
    return "connected"


def make_socket(family: int) -> str:
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "made"


if __name__ == "__main__":
    probe.answer(look_around)
