"""The protocol of host and helper: what goes in comes out, and no line of a helper that lies
gets more than a ProtocolError."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snf_image_helper import protocol
from snf_image_helper.protocol import (
    Address,
    Event,
    Failed,
    Found,
    Nic,
    PersonalityFile,
    ProtocolError,
    Ready,
    Request,
    RunResult,
    TaskEnd,
    TaskStart,
    Wake,
    Warned,
    parse_event,
)

REQUEST = Request(
    action="create",
    hostname="web.example.org",
    disk_count=2,
    nics=(
        Nic("52:54:00:00:00:01", "dhcp", "slaac"),
        Nic("52:54:00:00:00:02", Address("192.0.2.5", 24, "192.0.2.1"), None),
    ),
    password="s3cr3t-1",
    password_hash="s3cr3t-2",
    auth_keys="s3cr3t-3",
    personality=(PersonalityFile("/etc/motd", "s3cr3t4=", "root", "adm", 0o644),),
    properties={"SWAP": "2:512"},
    rsa_key="s3cr3t-6",
    entropy="s3cr3t5=",
    time=1e9,
)
EVENTS: list[Event] = [
    Ready(1),
    TaskStart("MountImage"),
    TaskEnd("AddSwap", "skipped", "no swap was asked for", 0.25),
    Found({"OSFAMILY": "linux", "ROOT_PARTITION": "1"}),
    Warned(("a", "b")),
    Failed(("c",)),
    RunResult("error", "why"),
]

text = st.text(max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {"type": st.sampled_from(["image-helper", "image-result", "other"]) | values},
    optional={
        "subtype": st.sampled_from(["ready", "task-start", "task-end", "found", "warning", "error"])
        | values,
        **dict.fromkeys(
            ("version", "task", "reason", "seconds", "messages", "result", "status", "properties"),
            values | text,
        ),
    },
)


def parse_or_refuse(line: bytes) -> Event | None:
    try:
        return parse_event(line)
    except ProtocolError as error:
        assert str(error)
        return None


def test_a_request_arrives_as_it_was_sent() -> None:
    line = protocol.make_request_line(REQUEST)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert protocol.parse_request(line) == REQUEST


def test_a_request_shows_no_secret() -> None:
    assert "s3cr3t" not in repr(REQUEST)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_arrives_as_it_was_sent(event: Event) -> None:
    assert parse_event(protocol.make_event_line(event, 12.5)) == event


def test_events_have_the_names_that_progress_monitors_know() -> None:
    made = [protocol.make_event(event, 12.5) for event in EVENTS]
    assert [(each["type"], each.get("subtype")) for each in made] == [
        ("image-helper", "ready"),
        ("image-helper", "task-start"),
        ("image-helper", "task-end"),
        ("image-helper", "found"),
        ("image-helper", "warning"),
        ("image-helper", "error"),
        ("image-result", None),
    ]
    assert made[1] == {
        "type": "image-helper",
        "subtype": "task-start",
        "timestamp": 12.5,
        "task": "MountImage",
    }


@given(fields)
def test_hostile_fields_are_an_event_or_refused(value: dict[str, Any]) -> None:
    parse_or_refuse(json.dumps(value).encode())


@given(st.binary(max_size=200))
def test_hostile_bytes_are_an_event_or_refused(line: bytes) -> None:
    parse_or_refuse(line)


@given(text)
def test_what_is_accepted_is_one_printable_line(hostile: str) -> None:
    event = parse_event(json.dumps({"type": "image-result", "status": "ok", "reason": hostile})
                        .encode())  # fmt: skip
    assert isinstance(event, RunResult)
    assert event.reason.isprintable()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not JSON"),
        (b"[" * 10000, "not JSON"),
        (b"1" * 5000, "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a": "' + b"x" * protocol.EVENT_LIMIT + b'"}', "a line of more than"),
        (b'{"type": "image-helper"}', "unknown type"),
        (b'{"type": "image-helper", "subtype": "ready", "version": true}', "not an integer"),
        (b'{"type": "image-helper", "subtype": "task-start", "task": []}', "not text"),
        (b'{"type": "image-helper", "subtype": "error", "messages": [1]}', "not a list of texts"),
        (b'{"type": "image-helper", "subtype": "found", "properties": [1]}', "an object of a few"),
        (b'{"type": "image-helper", "subtype": "found", "properties": {"a b": ""}}', "not names"),
        (b'{"type": "image-helper", "subtype": "found", "properties": {"A": 1}}', "not names and"),
        (b'{"type": "image-result", "status": "fine", "reason": ""}', "not one of ok, error"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_refusal_says_why(line: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        parse_event(line)


def test_properties_are_bounded_in_number_and_printable() -> None:
    many = {f"P{index}": "x" for index in range(51)}
    line = json.dumps({"type": "image-helper", "subtype": "found", "properties": many})
    with pytest.raises(ProtocolError, match="an object of a few"):
        parse_event(line.encode())
    line = json.dumps(
        {"type": "image-helper", "subtype": "found", "properties": {"OS": "a\n\x1b[2J"}}
    )
    assert parse_event(line.encode()) == Found({"OS": "a [2J"})


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "1e999", "1" + "0" * 400, "true", '"1"'])
def test_seconds_that_are_no_number_are_refused(seconds: str) -> None:
    line = (
        '{"type": "image-helper", "subtype": "task-end", "task": "X", "result": "done",'
        f' "reason": "", "seconds": {seconds}}}'
    )
    with pytest.raises(ProtocolError, match="seconds is not a number"):
        parse_event(line.encode())


def test_messages_are_bounded_in_length_and_number() -> None:
    line = json.dumps({"type": "image-helper", "subtype": "warning", "messages": ["x"] * 500})
    assert parse_event(line.encode()) == Warned(("x",) * 100)
    assert len(protocol.clean_text("x" * 10000)) == protocol.TEXT_LIMIT


def test_a_request_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REQUEST_LIMIT", 1000)
    with pytest.raises(ProtocolError, match="larger"):
        protocol.make_request_line(dataclasses.replace(REQUEST, auth_keys="x" * 1000))
    with pytest.raises(ProtocolError, match="more than 1000 bytes"):
        protocol.parse_request(b"x" * 1001)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{}", "the first line is not a request"),
        (b'{"type": "request", "version": 1}', "the host speaks version 1, this helper 2"),
        (b'{"type": "request", "version": 2}', "malformed"),
        (b'{"type": "request", "version": 2, "nics": [], "personality": [{}]}', "malformed"),
    ],
)
def test_a_request_of_another_version_or_form_is_refused(line: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        protocol.parse_request(line)


def test_what_wakes_arrives_as_it_was_sent_and_is_told_from_a_request() -> None:
    wake = Wake("s3cr3t", 1e9)
    assert "s3cr3t" not in repr(wake)
    assert protocol.parse_wake(protocol.make_wake_line(wake)) == wake
    assert protocol.parse_wake(protocol.make_request_line(REQUEST)) is None
    with pytest.raises(ProtocolError, match="malformed"):
        protocol.parse_wake(b'{"type": "wake", "surprise": 1}')


def test_a_cancel_is_told_from_a_request() -> None:
    assert protocol.is_cancel(protocol.make_cancel_line())
    assert not protocol.is_cancel(b'{"type": "request"}')


def test_a_reason_of_the_widest_characters_fits_in_a_line() -> None:
    reason = protocol.clean_text("\U0001f4a9" * 9000)
    line = protocol.make_event_line(RunResult("error", reason), 12.5)
    assert parse_event(line) == RunResult("error", reason)
