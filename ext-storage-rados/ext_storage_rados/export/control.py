"""Commands to a worker over its socket: one line of JSON there, one back.

    {"mode": "exclusive"}  →  {"error": ""}
    {"mode": ""}           →  {"error": ""}     the mode stays, the size is asked anew

The keeper listens and workers accept, so a command that comes between two workers waits.
"""

import json
import logging
import socket

import rados
import rbd

from ext_storage_rados.ceph.access import Mode
from ext_storage_rados.ceph.cluster import make_error
from ext_storage_rados.export.folder import Folder
from ext_storage_rados.export.served_image import ServedImage
from snf_ganeti.errors import DeadlineError, NodeError, SnfError

log = logging.getLogger(__name__)

_LIMIT = 4096


def listen(folder: Folder) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder.control.unlink(missing_ok=True)
    listener.bind(str(folder.control))
    listener.listen()
    folder.control.chmod(0o600)
    return listener


def set_mode(folder: Folder, mode: Mode, timeout: float) -> None:
    """Have the worker change the mode of its image's lock. Raises NodeError, DeadlineError."""
    _command(folder, mode, timeout)


def update_size(folder: Folder, timeout: float) -> None:
    """Have the worker learn how large its image is. Raises NodeError, DeadlineError."""
    _command(folder, "", timeout)


def _command(folder: Folder, mode: str, timeout: float) -> None:
    what = f"the export of {folder.path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(folder.control))
            connection.sendall(json.dumps({"mode": mode}).encode())
            answer = connection.recv(_LIMIT)
        except TimeoutError:
            raise DeadlineError(what, timeout, hint="is the cluster up: `ceph status`?") from None
        except OSError as error:
            raise NodeError(f"{what}: {error.strerror}", hint="attach the volume again") from None
    if not answer:
        raise NodeError(f"{what} ended meanwhile", hint="try again")
    if reason := json.loads(answer)["error"]:
        raise NodeError(reason)


def serve(listener: socket.socket, served: ServedImage) -> None:
    """Obey commands, one at a time, for as long as the process lives."""
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                error = _obey(served, connection.recv(_LIMIT))
                connection.sendall(json.dumps({"error": error}).encode())
            except OSError as lost:
                log.info("a command's sender left: %s", lost.strerror)


def _obey(served: ServedImage, message: bytes) -> str:
    """Gives the error, or nothing."""
    try:
        mode = json.loads(message)["mode"]
        if mode:
            served.set_mode(Mode(mode))
        else:
            served.update_size()
    except (rbd.Error, rados.Error) as error:
        return str(make_error(str(served.export.image), error))
    except (ValueError, KeyError, SnfError) as error:
        return f"{served.export.image}: {error}"
    return ""
