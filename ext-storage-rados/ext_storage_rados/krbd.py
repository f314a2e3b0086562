"""A volume as a block device by the kernel's own RBD client, through rbd(8)."""

import json
from collections.abc import Sequence
from pathlib import Path

from ext_storage_rados.ceph.access import Access
from ext_storage_rados.names import ImageName
from snf_ganeti import process
from snf_ganeti.errors import NodeError

BUS = Path("/sys/bus/rbd")

_BUSY = 16  # rbd's exit status is a number of errno
_SECONDS = 60.0


def is_there(bus: Path = BUS) -> bool:
    """Has the kernel loaded its client?"""
    return bus.is_dir()


def make_argv(access: Access, *words: str) -> list[str]:
    return ["rbd", f"--conf={access.conf}", f"--id={access.user}", "--format=json", *words]


def parse_device(text: str, image: ImageName) -> Path | None:
    """The device of an image in the JSON of `rbd device list`."""
    for mapped in json.loads(text or "[]"):
        found = ImageName(mapped["pool"], mapped.get("namespace", ""), mapped["name"])
        if found == image and mapped.get("snap", "-") == "-":
            return Path(mapped["device"])
    return None


def find_device(image: ImageName, access: Access) -> Path | None:
    shown = process.run(make_argv(access, "device", "list"), timeout=_SECONDS)
    return parse_device(shown.text, image)


def attach(image: ImageName, access: Access, timeout: float) -> Path:
    """Map an image, unless it is; gives its device. Raises NodeError."""
    device = find_device(image, access)
    if device is None:
        _run(timeout, make_argv(access, "device", "map", str(image)))
        device = find_device(image, access)
    if device is None:
        raise NodeError(f"{image} does not show after it was mapped", hint="see the kernel's log")
    return device


def detach(image: ImageName, access: Access, timeout: float) -> None:
    """Unmap an image; nothing when it is not mapped. Raises NodeError when it is in use."""
    device = find_device(image, access)
    if device is not None:
        ended = _run(timeout, make_argv(access, "device", "unmap", str(device)), ok=(0, _BUSY))
        if ended == _BUSY:
            raise NodeError(f"{device} is in use", hint="stop what uses it first")


def _run(timeout: float, argv: Sequence[str], ok: Sequence[int] = (0,)) -> int:
    return process.run(argv, timeout=timeout, ok=ok).status
