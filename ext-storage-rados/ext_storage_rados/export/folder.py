"""What an export shows of itself: a folder under /run, read by whoever comes later.

export.json   what is exported, and how; the worker keeps the lock's mode there
lock, pid     held by the keeper for as long as it lives; its process
busy          held by a run that attaches or detaches, and by a keeper until it is to be found
disk          the FUSE file system's mount point, a file
device        symbolic link to the loop device, there once it works
control       the worker's socket
log           what keeper and worker said
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from ext_storage_rados.ceph.access import Access, Mode
from ext_storage_rados.names import ImageName
from snf_ganeti.errors import LockError
from snf_ganeti.lock import lock_file

RUN = Path("/run/ext-storage-rados")


@dataclass(frozen=True)
class Export:
    """What a worker serves. fenced: another node took the volume, so nothing is written here
    until it is attached again. client: the last worker's address in the cluster."""

    image: ImageName
    access: Access
    mode: Mode = Mode.SHARED
    fenced: bool = False
    client: str = ""


@dataclass(frozen=True)
class Folder:
    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def pid(self) -> Path:
        return self.path / "pid"

    @property
    def disk(self) -> Path:
        return self.path / "disk"

    @property
    def device(self) -> Path:
        return self.path / "device"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def record(self) -> Path:
        return self.path / "export.json"

    def read_export(self) -> Export | None:
        """None when nothing is, or was, exported here."""
        try:
            return parse_export(self.record.read_text())
        except FileNotFoundError:
            return None

    def write_export(self, export: Export) -> None:
        draft = self.path / "export.draft"
        draft.write_text(format_export(export))
        draft.replace(self.record)

    def find_keeper(self) -> int | None:
        """The id of the keeper's process; None when none lives."""
        if not self.lock.exists():
            return None
        try:
            with lock_file(self.lock):
                return None
        except LockError:
            return int(self.pid.read_text())

    def remove_files(self) -> None:
        """All but the locks, which others may be waiting for; the record last, which says that
        there is something to remove."""
        for path in (self.device, self.control, self.disk, self.pid, self.log, self.record):
            path.unlink(missing_ok=True)


def find_folder(image: ImageName, run: Path = RUN) -> Folder:
    """Where an image's export is, or would be: named after it, and short enough for a socket."""
    name = str(image).replace("/", ",")
    if len(name) > 75:
        name = f"{image.name[:27]},{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return Folder(run / name)


def find_exported(device: Path, run: Path = RUN) -> ImageName | None:
    """The image behind a loop device of this node."""
    for link in run.glob("*/device"):
        if link.readlink() == device and (export := Folder(link.parent).read_export()):
            return export.image
    return None


def format_export(export: Export) -> str:
    return json.dumps(dataclasses.asdict(export), default=os.fspath) + "\n"


def parse_export(text: str) -> Export:
    record = json.loads(text)
    access = record["access"]
    return Export(
        ImageName(**record["image"]),
        Access(Path(access["conf"]), access["user"], access["timeout"]),
        Mode(record["mode"]),
        record["fenced"],
        record["client"],
    )
