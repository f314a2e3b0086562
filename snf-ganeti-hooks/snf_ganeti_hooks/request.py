"""A NIC script: it asks the service, which has everything at hand, and else does the work itself.

One packet there, one back, over a socket that only root can open:

    there   NAME=value, each ended by a zero: the environment that Ganeti gave, and ACTION
    back    the exit status, one byte; then what the script prints on stderr

A service that does not run, dies, or does not answer in time stops no instance. It never acts
for a script that has left, and undoes what it did for one that left meanwhile, so whoever acts
last is the one that Ganeti hears of.

Most of the time that a NIC takes is the start of this program: it imports nothing of size.
"""

import os
import sys
from _socket import AF_UNIX, SOCK_SEQPACKET
from _socket import socket as Socket  # the module `socket` takes longer than all of this

SOCKET = "/run/snf-ganeti-hooks/nic.sock"
LIMIT = 192 << 10
"""Bytes of a packet; a longer request is not sent."""
SECONDS = 10.0
"""How long a script waits for an answer."""


def run_nic_script() -> int:
    """Have the NIC in the environment set up, or for 3.2's `down` taken down."""
    program = os.path.basename(sys.argv[0])  # noqa: PTH119 - pathlib takes its time to import
    os.environ.setdefault("ACTION", "down" if program == "down" else "up")
    answer = ask(make_request([*os.environb.items()]))
    if answer is None:
        from snf_ganeti.errors import run_main
        from snf_ganeti_hooks import scripts

        run_main(scripts.run_nic_script)
    sys.stderr.write(answer[1:].decode("utf-8", "replace"))
    return answer[0]


def make_request(environ: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%s=%s\0" % pair for pair in environ)


def ask(request: bytes, path: str = SOCKET) -> bytes | None:
    """The service's answer; None without one in time."""
    connection = Socket(AF_UNIX, SOCK_SEQPACKET)
    try:
        connection.settimeout(SECONDS)
        connection.connect(path)
        connection.send(request)
        return connection.recv(LIMIT) or None
    except OSError:
        return None
    finally:
        connection.close()


def parse_request(data: bytes) -> dict[str, str]:
    """The environment of a script. Raises ValueError."""
    if len(data) > LIMIT or not data.endswith(b"\0"):
        raise ValueError("a request that was cut off")
    pairs = (pair.partition(b"=") for pair in data[:-1].split(b"\0"))
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def make_answer(status: int, lines: list[str]) -> bytes:
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    return bytes([status]) + text[: LIMIT - 1]
