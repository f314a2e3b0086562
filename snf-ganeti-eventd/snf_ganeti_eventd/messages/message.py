"""Facts as messages: the predecessor's types, keys and fields, and new ones for what it dropped.

A fact is that an operation of a job came to a state. It always makes the same message with the
same id, whichever node publishes it and however often; only what an instance looks like *now*
(`instance_*`) can differ.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snf_ganeti_eventd.jobs.job import FINAL, STATUSES, Job, Op, Stamp
from snf_ganeti_eventd.messages import opcode
from snf_ganeti_eventd.messages.opcode import Kind, Subject
from snf_ganeti_eventd.messages.redaction import (
    Fields,
    cut_secrets,
    filter_value,
    find_dropped,
    make_secrets,
)

SCHEMA = 1
"""Version of the messages' form, in each as `schema`; it grows when a field changes meaning."""

TYPES: Mapping[Kind, str] = {
    Kind.OP: "ganeti-op-status",
    Kind.NETWORK: "ganeti-network-status",
    Kind.CLUSTER: "ganeti-cluster-status",
    Kind.HEARTBEAT: "eventd-heartbeat",
    Kind.GROUP: "ganeti-group-status",
    Kind.NODE: "ganeti-node-status",
    Kind.BACKUP: "ganeti-backup-status",
    Kind.JOB: "ganeti-job-status",
}
KEYS: Mapping[Kind, str] = {
    Kind.OP: "ganeti.{prefix}.event.op",
    Kind.NETWORK: "ganeti.{prefix}.event.network",
    Kind.CLUSTER: "ganeti.event.cluster",
    Kind.HEARTBEAT: "eventd.heartbeat",
    Kind.PROGRESS: "ganeti.{prefix}.event.progress",
    Kind.GROUP: "ganeti.event.group",
    Kind.NODE: "ganeti.event.node",
    Kind.BACKUP: "ganeti.{prefix}.event.backup",
    Kind.JOB: "ganeti.event.job",
}
_NAMES: Mapping[Kind, str] = {
    Kind.OP: "instance",
    Kind.NETWORK: "network",
    Kind.GROUP: "group",
    Kind.NODE: "node",
    Kind.BACKUP: "instance",
}
"""The field that holds the object's name, by kind of event."""

_ID_LIMIT = 255
_SNAPSHOT_LIMIT = 4096
_CHANGE_NAME = re.compile(r"[\w./:-]{1,100}")
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_]+")


@dataclass(frozen=True)
class Message:
    """id: AMQP's `message_id`; key: routing key; time: event time in seconds since the epoch.

    redacted: how many values of the operation were held back.
    """

    id: str
    kind: Kind
    key: str
    body: Mapping[str, Any]
    time: int
    redacted: int = field(default=0, compare=False)

    def encode(self) -> bytes:
        return json.dumps(self.body, allow_nan=False).encode()

    def __repr__(self) -> str:
        return f"Message({self.id})"


def find_news(job: Job, known: Sequence[str]) -> list[Op]:
    """The operations that are in a state other than `known`, by index; a final state stays.

    A state that no version of Ganeti known to us has is left until it passes.
    """
    states = [*known, *[""] * (len(job.ops) - len(known))]
    return [
        op
        for op, state in zip(job.ops, states, strict=False)
        if op.status != state and state not in FINAL and op.status in STATUSES
    ]


def make_messages(
    job: Job, op: Op, known: str, cluster: str, event_time: Stamp, instance: Mapping[str, Any]
) -> list[Message]:
    """The messages of an operation that is no longer in state `known` ("" for none).

    event_time: from `job.make_event_time`, or later; instance: `instance_*` fields, or empty.
    """
    beats = opcode.is_heartbeat(op) and op.status != "queued" and known in ("", "queued")
    subjects = [Subject(Kind.HEARTBEAT)] if beats else []
    is_quiet = op.op_id in opcode.TAG_OPCODES and not op.is_final
    subjects += [] if is_quiet else [opcode.find_subject(op)]
    return [_make_message(job, op, cluster, event_time, subject, instance) for subject in subjects]


def make_id(cluster: str, job_id: int, index: int, state: str) -> str:
    """The same fact has the same id. state: a status, or "heartbeat"."""
    fact = f"/{job_id}/{index}/{state}"
    if len(cluster.encode()) + len(fact) > _ID_LIMIT:
        cluster = hashlib.sha256(cluster.encode()).hexdigest()
    return cluster + fact


def make_key(kind: Kind, name: str) -> str:
    """The routing key; `{prefix}` is the name up to its first dash or dot: one word."""
    return KEYS[kind].format(prefix=make_prefix(name))


def make_prefix(name: str) -> str:
    word = re.split(r"[-.]", name, maxsplit=1)[0]
    return _NOT_IN_KEYS.sub("_", word)[:63] or "_"


def _make_message(
    job: Job, op: Op, cluster: str, event_time: Stamp, subject: Subject,
    instance: Mapping[str, Any],
) -> Message:  # fmt: skip
    dropped = find_dropped(opcode.KNOWN_INPUT, op.input)
    secrets = make_secrets(dropped)
    is_heartbeat = subject.kind is Kind.HEARTBEAT
    body: dict[str, Any] = {
        "type": TYPES[subject.kind],
        "schema": SCHEMA,
        "event_time": list(event_time),
        "operation": op.op_id,
        "status": op.status,
        "jobId": job.id,
        "opIndex": op.index,
        "cluster": cluster,
        "logmsg": None if op.message is None else cut_secrets(op.message, secrets),
        "result": make_result(op, secrets),
    }
    if subject.kind in _NAMES:
        body[_NAMES[subject.kind]] = subject.name
    if subject.kind not in (Kind.HEARTBEAT, Kind.CLUSTER):
        body["job_fields"] = make_job_fields(op, subject.kind)
    if subject.kind is Kind.OP:
        body["tags"] = _make_tags(op)
        body.update(instance if opcode.wants_instance(op) else {})
    return Message(
        id=make_id(cluster, job.id, op.index, "heartbeat" if is_heartbeat else op.status),
        kind=subject.kind,
        key=make_key(subject.kind, subject.name),
        body=body,
        time=event_time[0],
        redacted=len(dropped),
    )


def make_job_fields(op: Op, kind: Kind) -> dict[str, Any]:
    """The parameters of an operation that its event has, by the tables of `opcode`."""
    if kind is Kind.NETWORK:
        # Ganeti calls the subnet "network"; the event's key is the predecessor's.
        named = {**op.input, "subnet": op.input.get("network")}
        kept = filter_value(opcode.NETWORK_FIELDS, named)
        return {name: kept.get(name) for name in opcode.NETWORK_FIELDS.by_name}
    spec = opcode.FIELDS.get(op.op_id, Fields({}))
    if op.op_id == "OP_INSTANCE_CREATE" and op.status == "error":
        spec = opcode.CREATE_INPUT
    fields: dict[str, Any] = filter_value(spec, dict(op.input))
    if op.op_id == "OP_INSTANCE_SNAPSHOT":
        fields["snapshot_info"] = _find_snapshot_info(op.input.get("reason"))
    return fields


def make_result(op: Op, secrets: frozenset[str]) -> Any:
    """An error as `[class, [text, code]]`; of a success only what can't hold a secret: names
    of nodes after a creation, numbers and truths, and which parameters changed."""
    if op.status != "success":
        return _make_error(op.result, secrets)
    match op.op_id, op.result:
        case "OP_INSTANCE_CREATE", list(nodes):
            return [cut_secrets(node, secrets) for node in nodes if isinstance(node, str)]
        case "OP_INSTANCE_SET_PARAMS", list(changes):
            return [change for each in changes if (change := _make_change(each))]
        case _, bool() | int() | float():
            return op.result
    return None


def _make_error(result: Any, secrets: frozenset[str]) -> Any:
    """Texts and numbers of a failure; its inner values are what was asked for, so cut."""
    match result:
        case str():
            return cut_secrets(result, secrets)
        case list():
            return [_make_error(each, secrets) for each in result[:10]]
        case bool() | int() | float() | None:
            return result
    return None


def _make_change(change: Any) -> list[Any] | None:
    """`[name, value]` of a modification: names alone, but for plain numbers."""
    if not isinstance(change, list) or len(change) != 2:
        return None
    name, value = change
    if not isinstance(name, str) or not _CHANGE_NAME.fullmatch(name):
        return None
    return [name, value if isinstance(value, bool | int | float) else None]


def _make_tags(op: Op) -> list[str]:
    tags = op.input.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _find_snapshot_info(reason: Any) -> str | None:
    """What a controller wrote about a snapshot, as the first reason of its job."""
    first = reason[0] if isinstance(reason, list) and reason else None
    if not isinstance(first, list) or len(first) < 2 or first[0] != "gnt:user":
        return None
    text = first[1]
    return text if isinstance(text, str) and len(text) <= _SNAPSHOT_LIMIT else None
