"""The worker: one process with one client of Ceph, which serves one served.

    python3 -m ext_storage_rados.export.worker FOLDER FUSE CONTROL READY

The last three are descriptors: of /dev/fuse, of the listening control socket, and of a pipe on
which it says that the image is open.
"""

import contextlib
import logging
import os
import socket
import sys
import threading
from pathlib import Path

from ext_storage_rados.ceph import cluster
from ext_storage_rados.export import control
from ext_storage_rados.export.folder import Folder
from ext_storage_rados.export.served_image import ServedImage
from ext_storage_rados.export.server import Server
from snf_ganeti.errors import NodeError, run_main
from snf_ganeti.log import configure

log = logging.getLogger(__name__)

# A write is answered when the cluster has it: with a cache it would die with the worker.
_OPTIONS = {"rbd_cache": "false", "client_mount_timeout": "30"}


def main() -> int:
    configure("worker")
    folder = Folder(Path(sys.argv[1]))
    descriptor, listener, ready = map(int, sys.argv[2:5])
    export = folder.read_export()
    if export is None:
        raise NodeError(f"{folder.path} has no record of an export")
    with (
        cluster.connect(export.access, _OPTIONS) as client,
        cluster.open_pool(client, export.image.pool, export.image.namespace) as context,
        contextlib.closing(ServedImage(folder, export, client, context)) as served,
    ):
        served.resume()
        commands = socket.socket(fileno=listener)
        threading.Thread(target=control.serve, args=(commands, served), daemon=True).start()
        os.write(ready, b"1")
        os.close(ready)
        log.info("%s is served by client %s", export.image, client.get_addrs())
        Server(descriptor, served).serve()
        log.info("%s is served no more", export.image)
    return 0


if __name__ == "__main__":
    run_main(main)
