"""Attaching and detaching an export, from Ganeti's side: run after run, crash after crash."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ext_storage_rados.ceph.access import Access, Mode
from ext_storage_rados.export.folder import Export, Folder, find_folder
from ext_storage_rados.names import ImageName
from snf_ganeti import process
from snf_ganeti.errors import DeadlineError, NodeError
from snf_ganeti.lock import lock_file

_BUSY_SECONDS = 60.0
_KILL_SECONDS = 10.0
_END_SECONDS = 30.0  # a keeper has its own, shorter limits
_LINE_LIMIT = 4096


def find_device(image: ImageName) -> Path | None:
    """The loop device of an image that is exported and served, without asking Ceph."""
    return _find_device(find_folder(image))


def attach(image: ImageName, access: Access, timeout: float) -> Path:
    """Export an image, unless it is; gives its loop device. Raises SnfError."""
    folder = find_folder(image)
    with _busy(folder) as busy:
        device = _find_device(folder)
        if device is not None:
            return device
        if (pid := folder.find_keeper()) is not None:
            _stop(folder, pid, timeout)
        return _start(folder, Export(image, access), timeout, busy)


def detach(image: ImageName, timeout: float) -> None:
    """End an export; nothing when there is none. Raises NodeError when it is in use."""
    from ext_storage_rados.ceph import predecessor

    folder = find_folder(image)
    if not folder.path.exists():
        return
    with _busy(folder):
        pid = folder.find_keeper()
        if pid is not None:
            _stop(folder, pid, timeout)
        elif (left := folder.read_export()) is not None:
            predecessor.note(image.name, left.client)
        _clear(folder)


def set_mode(image: ImageName, mode: Mode, timeout: float) -> bool:
    """Change the mode of the lock of an image exported here; False when it is not."""
    from ext_storage_rados.export import control

    folder = find_folder(image)
    if _find_device(folder) is None:
        return False
    control.set_mode(folder, mode, timeout)
    return True


def update_size(image: ImageName, size: int, timeout: float) -> None:
    """Wait until the export is as large as the image has become, in bytes; nothing when it is
    not exported here. Raises DeadlineError."""
    from ext_storage_rados.export import control, loop

    folder = find_folder(image)
    device = _find_device(folder)
    deadline = time.monotonic() + timeout
    while device is not None and loop.read_size(device) < size:
        control.update_size(folder, timeout)
        if folder.disk.stat().st_size >= size:  # so the kernel learns it, too
            loop.update_size(device)
        elif time.monotonic() > deadline:
            raise DeadlineError(f"the growth of {device}", timeout)
        else:
            time.sleep(0.05)


def _find_device(folder: Folder) -> Path | None:
    """None, too, when another node has taken the volume: this export is good for nothing."""
    from ext_storage_rados.export import loop

    try:
        device = folder.device.readlink()
    except OSError:
        return None
    export = folder.read_export()
    if export is None or export.fenced or folder.find_keeper() is None:
        return None
    return device if loop.find_file(device) == str(folder.disk) else None


def _start(folder: Folder, export: Export, timeout: float, busy: int) -> Path:
    """Start a keeper, and wait for the device that it prints. busy: the lock that is held."""
    before = folder.read_export()
    _clear(folder)
    folder.write_export(replace(export, client=before.client) if before else export)
    line = _run_keeper(folder, timeout, busy)
    if line.startswith("/dev/"):
        return Path(line)
    reason = line.removeprefix("error: ") or "its keeper died"
    raise NodeError(f"{export.image} can't be exported: {reason}")


def _run_keeper(folder: Folder, timeout: float, busy: int) -> str:
    """The first line of a new keeper, which then goes on by itself. If we are killed meanwhile,
    it keeps others away until they can find it. Raises DeadlineError."""
    module = "ext_storage_rados.export.keeper"
    python = [sys.executable, "-I", "-m", module, str(folder.path), str(busy)]
    argv = ["setsid", "--fork", *python]
    with (
        folder.log.open("ab") as log,
        process.spawn(argv, stdout=subprocess.PIPE, stderr=log, pass_fds=[busy]) as child,
    ):
        child.wait()  # the half of setsid that stays; the keeper is in a session of its own
        assert child.stdout is not None
        if select.select([child.stdout], [], [], timeout)[0]:
            return os.read(child.stdout.fileno(), _LINE_LIMIT).decode().strip()
    pid = folder.find_keeper()
    if pid is not None:
        _kill(pid)
    _clear(folder)
    raise DeadlineError("the export of a volume", timeout, hint="is the cluster up: `ceph status`?")


def _stop(folder: Folder, pid: int, timeout: float) -> None:
    """Have a keeper end. Raises NodeError when its device is in use."""
    from ext_storage_rados.export import loop

    with contextlib.suppress(OSError):
        device = folder.device.readlink()
        if users := [user for user in loop.find_users(device) if not user.endswith(f"({pid})")]:
            raise NodeError(f"{device} is in use by {', '.join(users)}", hint="stop that first")
    if not _signal(pid, signal.SIGTERM, max(timeout, _END_SECONDS)):
        raise NodeError(f"the export {folder.path.name} does not end", hint=f"see {folder.log}")


def _kill(pid: int) -> None:
    """A keeper that never came to serve: with its last descriptor the file system is aborted."""
    _signal(pid, signal.SIGKILL, _KILL_SECONDS)


def _signal(pid: int, number: signal.Signals, timeout: float) -> bool:
    """Send a signal that ends a process; False when it has not ended in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(descriptor, number)
        return bool(select.select([descriptor], [], [], timeout)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def _clear(folder: Folder) -> None:
    """Remove what a keeper that is dead left."""
    if folder.record.exists():
        from ext_storage_rados.export import mount

        mount.unmount(folder.disk, lazily=True)
        folder.remove_files()


@contextlib.contextmanager
def _busy(folder: Folder) -> Iterator[int]:
    """One run at a time that changes an export; gives the lock's descriptor."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with lock_file(folder.path / "busy", timeout=_BUSY_SECONDS) as busy:
        yield busy
