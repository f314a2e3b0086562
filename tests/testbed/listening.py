"""Whether a server listens on a path: before that the path is there already, and refuses whoever
connects."""

import os

UNIX_SOCKETS = "/proc/net/unix"
_ACCEPTS = 1 << 16
"""__SO_ACCEPTCON of linux/net.h."""


def is_listening(sockets: str, path: str | os.PathLike[str]) -> bool:
    """sockets: what UNIX_SOCKETS holds where the server runs; see proc(5)."""
    rows = (line.split(maxsplit=7) for line in sockets.splitlines()[1:])
    return any(row[7:] == [os.fspath(path)] and int(row[3], 16) & _ACCEPTS for row in rows)
