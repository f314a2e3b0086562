"""What the predecessor's clients ask for: one JSON object, which nothing ends."""

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from snf_ganeti.errors import InputError
from vncauthproxy.connections.stream import Stream

REQUEST_LIMIT = 4096

ConsoleType = Literal["vnc", "vnc-ws", "vnc-wss"]
_TYPES = ("vnc", "vnc-ws", "vnc-wss")
_FIELDS = {
    "source_port": int,
    "destination_address": str,
    "destination_port": int,
    "password": str,
    "auth_user": str,
    "auth_password": str,
}


@dataclass(frozen=True)
class Forwarding:
    """A request. source_port: 0 for any of the pool."""

    source_port: int
    destination_address: str
    destination_port: int
    auth_user: str
    type: ConsoleType
    password: str = field(repr=False)
    auth_password: str = field(repr=False)


def parse_forwarding(data: bytes) -> Forwarding:
    """Raises InputError, which never shows what was sent."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON") from None
    if not isinstance(document, dict):
        raise InputError("the request is not a JSON object")
    values: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        value = document.get(name)
        if kind is int and isinstance(value, str) and value.isdecimal():
            value = int(value[:6])
        if type(value) is not kind:
            raise InputError(f"the request has no {name}, or not of the right type")
        values[name] = value
    console_type = document.get("type", "vnc")
    if console_type not in _TYPES:
        raise InputError("the type is not one of vnc, vnc-ws, vnc-wss")
    if not values["password"]:
        raise InputError("the password is empty")
    return Forwarding(**values, type=cast(ConsoleType, console_type))


async def read_request(stream: Stream) -> bytes:
    """It is complete when it can be parsed. Raises ConnectionEnded."""
    data = b""
    while len(data) < REQUEST_LIMIT:
        more = await stream.read(REQUEST_LIMIT - len(data))
        data += more
        if not more:
            break
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(data)
            break
    return data
