"""systemd's notifications (sd_notify(3)): readiness, status, and a watchdog's signs of life."""

import contextlib
import os
import socket


def send(*lines: str) -> None:
    """Tell the service manager, if there is one: `READY=1`, `STATUS=…`, `WATCHDOG=1` …"""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.connect(address)
        end.send("\n".join(lines).encode())


def read_watchdog() -> float | None:
    """Seconds between two signs of life, half of what the manager waits; None for no watchdog."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 2_000_000
