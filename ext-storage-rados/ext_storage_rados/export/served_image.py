"""The image that a worker serves, with its lock's mode, as requests and commands share it."""

import logging
import os
import threading
from dataclasses import replace

import rados
import rbd

from ext_storage_rados.ceph import fencing
from ext_storage_rados.ceph.access import Mode
from ext_storage_rados.ceph.cluster import explained
from ext_storage_rados.export.folder import Export, Folder

log = logging.getLogger(__name__)


class ServedImage:
    """An open image. What is known of its lock is kept in the folder, for the next worker.

    gate: held while a request is handed to librbd; whoever changes the image takes it first.
    size: bytes, as of when it was asked last: librbd may have to ask Ceph, which may not answer.
    """

    def __init__(
        self, folder: Folder, export: Export, cluster: rados.Rados, context: rados.Ioctx
    ) -> None:
        self.folder = folder
        self.export = export
        self.cluster = cluster
        self.context = context
        self.gate = threading.Lock()
        self.image = self._open()
        self.size = self.image.size()
        self._recording = threading.Lock()

    def resume(self) -> None:
        """Take over from a worker that died: its lock would live 30 s longer than it. When
        another node has taken the volume meanwhile, nothing is written here any more."""
        export = self.export
        try:
            if export.client in fencing.find_owners(self.image):
                fencing.break_lock(self.image, export.client)
            elif export.client in fencing.find_watchers(self.image, self.cluster):
                fencing.blocklist(self.cluster, export.client)
            if export.mode is Mode.EXCLUSIVE and not export.fenced:
                self.image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        except (rbd.Error, rados.Error) as error:
            self.note_fenced(f"the lock can't be taken again: {error}")
        self._record(client=self.cluster.get_addrs())

    def set_mode(self, mode: Mode) -> None:
        """Raises rbd.Error, or ValueError after another node took the volume."""
        with self.gate:
            if self.export.fenced and mode is Mode.EXCLUSIVE:
                raise ValueError("another node took this volume; detach it here, then attach it")
            if mode is Mode.EXCLUSIVE:
                fencing.take(self.image)
            else:
                self._reopen()
            self._record(mode=mode)

    def update_size(self) -> None:
        """Learn how large the image has become. Raises rbd.Error."""
        self.size = self.image.size()

    def note_fenced(self, reason: str) -> None:
        if not self.export.fenced:
            log.error("%s: writes are refused: %s", self.export.image, reason)
            self._record(fenced=True)

    def close(self) -> None:
        """Raises rbd.Error."""
        self.image.close()

    def _open(self) -> rbd.Image:
        with explained(str(self.export.image)):
            return rbd.Image(self.context, self.export.image.name)

    def _reopen(self) -> None:
        """Let go of the lock. An image that has once been locked on demand takes its lock never
        again by itself; a new one does. Closing waits for what is under way."""
        try:
            self.image.close()
            self.image = self._open()
            self.size = self.image.size()
        except Exception:
            log.exception("%s can't be opened anew", self.export.image)
            os._exit(1)  # the next worker tries again

    def _record(self, *, mode: Mode | None = None, fenced: bool = False, client: str = "") -> None:
        with self._recording:
            now = self.export
            self.export = replace(
                now,
                mode=mode or now.mode,
                fenced=fenced or now.fenced,
                client=client or now.client,
            )
            self.folder.write_export(self.export)
