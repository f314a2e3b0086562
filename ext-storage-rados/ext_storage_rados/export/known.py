"""The quick answer to `attach`, which Ganeti asks before nearly everything.

It needs no settings and no Ceph: the volume's name, which has a UUID in it, leads to its
export. Only modules that Python has loaded anyway, or has in C, are imported here; whoever is
not sure gets nothing, and takes the long way.
"""

import fcntl
import os
from collections.abc import Mapping

RUN = "/run/ext-storage-rados"


def find_device(environ: Mapping[str, str], run: str = RUN, sys: str = "/sys/block") -> str:
    """The loop device of a volume that is exported and served, or nothing."""
    if environ.get("EXTP_ACCESS") == "userspace" or not environ.get("VOL_NAME"):
        return ""
    try:
        suffix = "," + environ["VOL_NAME"]
        (name,) = (each for each in os.listdir(run) if each.endswith(suffix))
        place = name.removesuffix(suffix).split(",")
        for key, part in zip(("EXTP_POOL", "EXTP_NAMESPACE"), (*place, ""), strict=False):
            if environ.get(key, part) not in (part, "", "None"):
                return ""
        return _check(f"{run}/{name}", sys)
    except (OSError, ValueError):
        return ""


def _check(folder: str, sys: str) -> str:
    """Does the keeper live, is the volume still ours, is the device on its file?"""
    with open(f"{folder}/lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return ""
        except BlockingIOError:
            pass
    with open(f"{folder}/export.json") as record:
        if '"fenced": false' not in record.read():
            return ""
    device = os.readlink(f"{folder}/device")  # noqa: PTH115 - pathlib is slow to import
    number = device.removeprefix("/dev/")
    with open(f"{sys}/{number}/loop/backing_file") as backing:
        return device if backing.read().rstrip("\n") == f"{folder}/disk" else ""
