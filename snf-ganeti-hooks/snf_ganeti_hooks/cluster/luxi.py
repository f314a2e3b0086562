"""A question to Ganeti's query daemon, on the master.

LUXI is JSON over a UNIX socket, each message ended by byte 3: {"method", "args"} there, and
{"success", "result"} back (lib/luxi.py and lib/rpc/transport.py in Ganeti's source).
"""

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snf_ganeti.errors import DeadlineError, NodeError

SOCKET = Path("/run/ganeti/socket/ganeti-query")
_END = b"\x03"
_SECONDS = 10.0
_LIMIT = 256 << 20


def query(what: str, fields: Sequence[str], path: Path = SOCKET) -> list[list[Any]]:
    """The fields of every object of a kind, a row each. Raises NodeError, DeadlineError."""
    request = json.dumps({"method": "Query", "args": [what, list(fields), None]})
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(str(path))
            connection.sendall(request.encode() + _END)
            return parse_response(_receive(connection))
    except TimeoutError:
        raise DeadlineError("Ganeti's query daemon", _SECONDS) from None
    except OSError as error:
        raise NodeError(f"Ganeti's query daemon can't be asked: {error.strerror}") from None


def parse_response(data: bytes) -> list[list[Any]]:
    """Raises NodeError for what is no answer, or a refusal."""
    try:
        response = json.loads(data)
        if response["success"] is not True:
            raise NodeError(f"Ganeti's query daemon refused: {str(response['result'])[:200]}")
        return [[value for _, value in row] for row in response["result"]["data"]]
    except (ValueError, KeyError, TypeError):
        raise NodeError("Ganeti's query daemon gave no answer that could be read") from None


def _receive(connection: socket.socket) -> bytes:
    data, deadline = bytearray(), time.monotonic() + _SECONDS
    while not data.endswith(_END):
        received = connection.recv(1 << 16)
        if not received or len(data) > _LIMIT:
            raise NodeError("Ganeti's query daemon broke off its answer")
        if time.monotonic() > deadline:
            raise TimeoutError
        data += received
    return bytes(data[: -len(_END)])
