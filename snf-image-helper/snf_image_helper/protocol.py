"""What host and helper say to each other: JSON Lines over two virtio-serial ports.

The host writes one `Request` to the port `org.snf.request`, and may write `{"type":
"cancel"}` after it. Before it, it may write `Wake`: a helper whose memory was saved and is
restored then takes over time and randomness, and is ready once more. The helper writes events
to `org.snf.events`:

    image-helper, subtype ready        the runner waits for its request, or was woken
    image-helper, subtype task-start   a task begins
    image-helper, subtype task-end     it ended: result, reason, seconds
    image-helper, subtype found        properties of an image that is inspected
    image-helper, subtype warning      messages
    image-helper, subtype error        messages
    image-result                       the last one: status, reason

Both ends import this module; the helper's package owns it. The helper has touched an
image, so the host believes nothing: `parse_event` takes bounded lines, known types and
known fields only.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

VERSION = 2
REQUEST_PORT = "org.snf.request"
EVENTS_PORT = "org.snf.events"

REQUEST_LIMIT = 64 << 20
"""Bytes of a request line: personality files are the bulk of it."""
EVENT_LIMIT = 16 << 10
"""Bytes of an event line."""
EVENTS_LIMIT = 2000
"""Events in one run."""
TEXT_LIMIT = 2000
"""Characters of a message or reason."""
_PROPERTIES_LIMIT = 50
_PROPERTY = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

Action = Literal["create", "rename", "inspect"]
Result = Literal["done", "skipped", "failed"]
Status = Literal["ok", "error"]

_LABEL = "(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_HOSTNAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME_LIMIT = 253


class ProtocolError(Exception):
    """A line that is not of this protocol; the text says why."""


@dataclass(frozen=True)
class Address:
    """A static address of a NIC; `gateway` is of the same family, or empty."""

    address: str
    prefix: int
    gateway: str = ""


@dataclass(frozen=True)
class Nic:
    """How the guest shall configure one NIC, found by its MAC.

    ipv4: "dhcp", a static address, or None. ipv6: "slaac" (router advertisements alone),
    "slaac_dhcp" (with stateless DHCPv6), "dhcp" (stateful), a static address, or None.
    """

    mac: str
    ipv4: Address | Literal["dhcp"] | None = None
    ipv6: Address | Literal["dhcp", "slaac", "slaac_dhcp"] | None = None


@dataclass(frozen=True)
class PersonalityFile:
    """A file to put into the guest; `contents` is base64."""

    path: str
    contents: str = field(repr=False)
    owner: str = "root"
    group: str = "root"
    mode: int = 0o440


@dataclass(frozen=True)
class Request:
    """One job for the helper. Disk `n` of `disk_count` is LUN n of the only SCSI host.

    hostname: empty where the image's own stays.
    properties: image and instance properties merged, names in upper case.
    rsa_key: PEM of a new key for the guest's SSH server; empty where the helper makes it.
    entropy: base64 of random bytes for the guest kernel's pool. time: the host's clock,
    seconds since the epoch.
    """

    action: Action
    hostname: str
    disk_count: int
    nics: tuple[Nic, ...] = ()
    password: str = field(default="", repr=False)
    password_hash: str = field(default="", repr=False)
    auth_keys: str = field(default="", repr=False)
    personality: tuple[PersonalityFile, ...] = field(default=(), repr=False)
    properties: Mapping[str, str] = field(default_factory=dict)
    rsa_key: str = field(default="", repr=False)
    entropy: str = field(default="", repr=False)
    time: float = 0.0
    old_hostname: str = ""
    version: int = VERSION


@dataclass(frozen=True)
class Wake:
    """Time went by while the helper did not run, and others were restored from the same
    memory. entropy and time: as in a request."""

    entropy: str = field(repr=False)
    time: float


@dataclass(frozen=True)
class Ready:
    version: int


@dataclass(frozen=True)
class TaskStart:
    task: str


@dataclass(frozen=True)
class TaskEnd:
    """reason: empty for `done`."""

    task: str
    result: Result
    reason: str
    seconds: float


@dataclass(frozen=True)
class Found:
    """What is in an image, as image properties."""

    properties: Mapping[str, str]


@dataclass(frozen=True)
class Warned:
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    messages: tuple[str, ...]


@dataclass(frozen=True)
class RunResult:
    """The last event; reason: empty for `ok`."""

    status: Status
    reason: str


Event = Ready | TaskStart | TaskEnd | Found | Warned | Failed | RunResult

_SUBTYPES: Mapping[str, type[Event]] = {
    "ready": Ready,
    "task-start": TaskStart,
    "task-end": TaskEnd,
    "found": Found,
    "warning": Warned,
    "error": Failed,
}
_NAMES = {kind: name for name, kind in _SUBTYPES.items()}


def make_request_line(request: Request) -> bytes:
    """The request as one line. Raises ProtocolError when it is larger than the limit."""
    line = json.dumps({"type": "request", **asdict(request)}).encode() + b"\n"
    if len(line) > REQUEST_LIMIT:
        raise ProtocolError(f"the request is larger than {REQUEST_LIMIT >> 20} MiB")
    return line


def make_wake_line(wake: Wake) -> bytes:
    return json.dumps({"type": "wake", **asdict(wake)}).encode() + b"\n"


def make_cancel_line() -> bytes:
    return b'{"type": "cancel"}\n'


def is_cancel(line: bytes) -> bool:
    """Does the host ask for the end? Raises ProtocolError for what is not an object."""
    return _parse_object(line, EVENT_LIMIT).get("type") == "cancel"


def parse_wake(line: bytes) -> Wake | None:
    """The host's line, if it is the one that wakes. Raises ProtocolError."""
    fields = _parse_object(line, REQUEST_LIMIT)
    if fields.pop("type", None) != "wake":
        return None
    try:
        return Wake(**fields)
    except TypeError as error:
        raise ProtocolError(f"the line that wakes is malformed: {error}") from None


def parse_request(line: bytes) -> Request:
    """The helper's reading of the host's line; the host is trusted, its version is not."""
    fields = _parse_object(line, REQUEST_LIMIT)
    if fields.pop("type", None) != "request":
        raise ProtocolError("the first line is not a request")
    if fields.get("version") != VERSION:
        raise ProtocolError(
            f"the host speaks version {fields.get('version')}, this helper {VERSION}"
        )
    try:
        fields["nics"] = tuple(_make_nic(nic) for nic in fields["nics"])
        fields["personality"] = tuple(PersonalityFile(**each) for each in fields["personality"])
        return Request(**fields)
    except (KeyError, TypeError) as error:
        raise ProtocolError(f"the request is malformed: {error}") from None


def make_event(event: Event, timestamp: float) -> dict[str, Any]:
    """An event as the object that goes over the wire and on to a progress monitor."""
    if isinstance(event, RunResult):
        head = {"type": "image-result"}
    else:
        head = {"type": "image-helper", "subtype": _NAMES[type(event)]}
    return {**head, "timestamp": timestamp, **asdict(event)}


def make_event_line(event: Event, timestamp: float) -> bytes:
    """As UTF-8: escapes would make a line of a reason within TEXT_LIMIT exceed EVENT_LIMIT."""
    text = json.dumps(make_event(event, timestamp), ensure_ascii=False)
    return text.encode("utf-8", "replace") + b"\n"


def parse_event(line: bytes) -> Event:
    """Read one line of a helper that may lie. Raises ProtocolError."""
    fields = _parse_object(line, EVENT_LIMIT)
    kind = fields.get("type")
    known = (
        RunResult if kind == "image-result"
        else _SUBTYPES.get(str(fields.get("subtype"))) if kind == "image-helper"
        else None
    )  # fmt: skip
    if known is None:
        raise ProtocolError("an event of unknown type")
    if known is Ready:
        return Ready(_take_int(fields, "version"))
    if known is TaskStart:
        return TaskStart(_take_text(fields, "task"))
    if known is TaskEnd:
        return TaskEnd(
            _take_text(fields, "task"),
            _take_word(fields, "result", get_args(Result)),
            _take_text(fields, "reason"),
            _take_seconds(fields, "seconds"),
        )
    if known is RunResult:
        return RunResult(
            _take_word(fields, "status", get_args(Status)), _take_text(fields, "reason")
        )
    if known is Found:
        return Found(_take_properties(fields, "properties"))
    messages = _take_texts(fields, "messages")
    return Warned(messages) if known is Warned else Failed(messages)


def is_hostname(text: str) -> bool:
    """Can a guest be named so? RFC 1123, section 2.1: dots between labels of up to 63."""
    return len(text) <= _NAME_LIMIT and _HOSTNAME.fullmatch(text) is not None


def clean_text(text: str) -> str:
    """Text from a hostile side as one printable line of bounded length.

    What is too long loses its middle: a name stands first, the reason last.
    """
    if len(text) > 2 * TEXT_LIMIT:
        text = text[:TEXT_LIMIT] + text[-TEXT_LIMIT:]
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = TEXT_LIMIT // 2
    return line if len(line) <= TEXT_LIMIT else f"{line[: half - 1]}…{line[-half:]}"


def _parse_object(line: bytes, limit: int) -> dict[str, Any]:
    if len(line) > limit:
        raise ProtocolError(f"a line of more than {limit} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("a line that is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("a line that is not a JSON object")
    return value


def _make_nic(fields: Mapping[str, Any]) -> Nic:
    def mode(value: Any) -> Any:
        return Address(**value) if isinstance(value, dict) else value

    return Nic(fields["mac"], mode(fields["ipv4"]), mode(fields["ipv6"]))


def _take_text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"an event whose {key} is not text")
    return clean_text(value)


def _take_texts(fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = fields.get(key)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ProtocolError(f"an event whose {key} is not a list of texts")
    return tuple(clean_text(each) for each in value[:100])


def _take_properties(fields: Mapping[str, Any], key: str) -> Mapping[str, str]:
    value = fields.get(key)
    if not isinstance(value, dict) or len(value) > _PROPERTIES_LIMIT:
        raise ProtocolError(f"an event whose {key} are not an object of a few")
    for name, text in value.items():
        if not _PROPERTY.fullmatch(name) or not isinstance(text, str):
            raise ProtocolError(f"an event whose {key} are not names and texts")
    return {name: clean_text(text) for name, text in value.items()}


def _take_int(fields: Mapping[str, Any], key: str) -> int:
    value = fields.get(key)
    if type(value) is not int:
        raise ProtocolError(f"an event whose {key} is not an integer")
    return value


def _take_seconds(fields: Mapping[str, Any], key: str) -> float:
    value: Any = fields.get(key)
    try:
        seconds = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:  # an integer may have more digits than a float takes
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ProtocolError(f"an event whose {key} is not a number")
    return seconds


def _take_word(fields: Mapping[str, Any], key: str, words: Sequence[Any]) -> Any:
    value = fields.get(key)
    if value not in words:
        raise ProtocolError(f"an event whose {key} is not one of {', '.join(words)}")
    return value
