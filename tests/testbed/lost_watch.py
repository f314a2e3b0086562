"""A program for a node: clients of Ceph that are killed while they begin to watch an object.

    python3 lost_watch.py POOL OBJECT CLIENTS

An OSD that has carried out such a request, and loses the connection before it is on its disk,
lists the client among the object's watchers for good. Each client is killed at another moment.
"""

import ctypes
import os
import random
import signal
import sys
import time

_LONGEST = 0.02  # seconds from a request to its answer; a busy OSD takes longer


def watch_and_die(pool: str, name: str, pause: float) -> None:
    """By librados's own C, as its Python can't watch."""
    librados = ctypes.CDLL("librados.so.2")
    cluster, context, cookie, answered = (ctypes.c_void_p() for _ in range(4))
    ignored = ctypes.CFUNCTYPE(None)(lambda: None)
    librados.rados_create(ctypes.byref(cluster), b"ganeti")
    librados.rados_conf_read_file(cluster, b"/etc/ceph/ceph.conf")
    librados.rados_connect(cluster)
    librados.rados_ioctx_create(cluster, pool.encode(), ctypes.byref(context))
    librados.rados_stat(context, name.encode(), None, None)  # now it is connected to the OSD
    librados.rados_aio_create_completion2(None, None, ctypes.byref(answered))
    arguments = (answered, ctypes.byref(cookie), ignored, ignored)
    librados.rados_aio_watch(context, name.encode(), *arguments)
    time.sleep(pause)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    pool, name, count = sys.argv[1:]
    for _ in range(int(count)):
        child = os.fork()
        if not child:
            watch_and_die(pool, name, random.uniform(0, _LONGEST))
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
