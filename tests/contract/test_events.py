"""What consumers of events rely on, and what they must never see."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from snf_ganeti_eventd.cli import make_parser
from snf_ganeti_eventd.commands.show import make_line
from snf_ganeti_eventd.jobs.job import make_event_time
from snf_ganeti_eventd.messages.instance import FIELDS, make_details
from snf_ganeti_eventd.messages.message import Message, make_messages
from snf_ganeti_eventd.messages.opcode import FIELDS as PUBLISHED
from snf_ganeti_eventd.messages.opcode import KNOWN_INPUT, Kind, find_subject, wants_instance
from snf_ganeti_eventd.messages.schema import check_body, read_schema
from unit.snf_ganeti_eventd.jobs import make_job, make_op

ROOT = Path(__file__).parents[2]
OPCODES: dict[str, list[str]] = json.loads(
    (ROOT / "tests/contract/ganeti-3.0-opcodes.json").read_text()
)
"""Every opcode of Ganeti 3.0.2 with its parameters, as `opcodes.OP_MAPPING` has them."""

SHARED = {"type", "event_time", "operation", "status", "jobId", "cluster", "logmsg", "result"}
PREDECESSOR = {
    Kind.OP: SHARED | {"instance", "tags", "job_fields"},
    Kind.NETWORK: SHARED | {"network", "job_fields"},
    Kind.CLUSTER: SHARED,
    Kind.HEARTBEAT: SHARED,
}
"""The fields of the predecessor's messages; those below `job_fields` come further down."""
DETAILS = {"instance_nics", "instance_disks", "instance_hvparams"}
NEW = {"schema", "opIndex"}
NAMES = ("instance_name", "network_name", "group_name", "node_name", "name")


def make(op_id: str, status: str = "success", **fields: Any) -> list[Message]:
    return make_all(make_op(op_id, status, **fields))


def make_all(fields: Mapping[str, Any]) -> list[Message]:
    job = make_job(901, fields)
    (op,) = job.ops
    details = make_details({**dict.fromkeys(FIELDS), "name": "x"}) if wants_instance(op) else {}
    return make_messages(job, op, "", "c1.example", make_event_time(job, op), details)


@pytest.mark.parametrize(
    ("kind", "operation", "fields"),
    [
        (Kind.OP, "OP_INSTANCE_SHUTDOWN", {"instance_name": "snf-7"}),
        (Kind.OP, "OP_TAGS_SET", {"kind": "instance", "name": "snf-7", "tags": ["a"]}),
        (Kind.NETWORK, "OP_NETWORK_ADD", {"network_name": "snf-net-2"}),
        (Kind.CLUSTER, "OP_CLUSTER_SET_PARAMS", {}),
    ],
)
def test_fields_are_the_predecessors(kind: Kind, operation: str, fields: dict[str, Any]) -> None:
    (message,) = make(operation, **fields)
    assert message.kind is kind
    assert set(message.body) == PREDECESSOR[kind] | NEW


def test_a_heartbeats_fields_are_the_predecessors() -> None:
    tags = ["snf:eventd:heartbeat:1"]
    message = make("OP_TAGS_SET", "waiting", kind="cluster", dry_run=True, tags=tags)[0]
    assert (message.kind, message.key) == (Kind.HEARTBEAT, "eventd.heartbeat")
    assert set(message.body) == PREDECESSOR[Kind.HEARTBEAT] | NEW


def test_details_are_the_predecessors() -> None:
    (message,) = make("OP_INSTANCE_CREATE", instance_name="snf-7")
    assert set(message.body) == PREDECESSOR[Kind.OP] | NEW | DETAILS


def test_job_fields_are_the_predecessors() -> None:
    shapes: dict[str, Any] = {"nics": [], "disks": [], "hvparams": {}, "beparams": {}}
    for operation in ("OP_INSTANCE_CREATE", "OP_INSTANCE_SET_PARAMS"):
        (message,) = make(operation, instance_name="snf-7", **shapes)
        assert message.body["job_fields"] == shapes
    (message,) = make("OP_NETWORK_CONNECT", network_name="n", group_name="default")
    assert message.body["job_fields"] == {
        "subnet": None, "gateway": None, "add_reserved_ips": None, "remove_reserved_ips": None,
        "group_name": "default",
    }  # fmt: skip
    (message,) = make("OP_TAGS_DEL", kind="instance", name="snf-7", tags=["a"], dry_run=False)
    assert message.body["job_fields"] == {"dry_run": False}


@pytest.mark.parametrize("kind", Kind)
def test_schemas_are_schemas(kind: Kind) -> None:
    Draft202012Validator.check_schema(dict(read_schema(kind)))
    schema = read_schema(kind)
    assert schema["additionalProperties"] is False
    assert PREDECESSOR.get(kind, set()) <= set(schema["required"])


@pytest.mark.parametrize("operation", OPCODES)
@pytest.mark.parametrize("status", ["running", "success", "error"])
def test_no_message_of_any_opcode_has_a_secret(operation: str, status: str) -> None:
    """A secret stands in every parameter that is not on an allow-list, alone and deep inside,
    and in a result and a message that quote it."""
    planted = {
        name: [f"planted-{name}", {"deep": [f"planted-in-{name}"]}, json.dumps([f"planted/{name}"])]
        for name in [*OPCODES[operation], "parameter_of_the_future"]
        if name not in KNOWN_INPUT.by_name
    }
    hidden: dict[str, Any] = {"osparams": planted, "secret": "planted-inside"}
    fields: dict[str, Any] = {
        **{name: f"name-of-{name}" for name in NAMES if name in OPCODES[operation]},
        **planted,
        "nics": [{"name": "n", **hidden}],
        "disks": [["modify", 0, {"size": 1, **hidden}]],
        "hvparams": {"boot_order": "disk", "kernel_args": "planted-kernel", **hidden},
        "beparams": hidden,
    }
    quoted = f"failed: {json.dumps(fields)} {fields!r}"
    op = make_op(operation, status)
    op["input"] |= fields
    op |= {"result": ["OpExecError", [quoted, "code"]], "log": [[1, [1, 1], "message", quoted]]}
    messages = make_all(op)
    for message in messages:
        check_body(message.kind, message.body)
        shown = json.dumps(message.body) + repr(message) + make_line(message.body)
        assert "planted" not in shown
        assert message.redacted > 0


@pytest.mark.parametrize("operation", OPCODES)
def test_every_opcode_makes_an_event_when_it_ends(operation: str) -> None:
    named = {name: "snf-7" for name in NAMES if name in OPCODES[operation]}
    for status in ("success", "error", "canceled"):
        (message,) = make(operation, status, **named)
        assert message.body["operation"] == operation


def test_no_allow_list_names_what_can_hold_a_secret() -> None:
    secret = re.compile(r"osparams|passw|secret|private|key(?!map)|x509|user_?data|personality")
    named = set(KNOWN_INPUT.by_name)
    named |= {name for fields in PUBLISHED.values() for name in fields.by_name}
    assert {name for name in named if secret.search(name)} == {"clear_osparams"}
    assert isinstance(find_subject(make_job(1, make_op("OP_X")).ops[0]).kind, Kind)


def test_the_manual_has_every_command_and_option() -> None:
    page = (ROOT / "snf-ganeti-eventd/man/snf-ganeti-eventd.8").read_text().replace(r"\-", "-")
    parser = make_parser()
    (verbs,) = (each.choices for each in parser._actions if isinstance(each.choices, dict))
    options = {option for each in (parser, *verbs.values()) for action in each._actions
               for option in action.option_strings if option.startswith("--")}  # fmt: skip
    for word in {*verbs, *options} - {"--help"}:
        assert re.search(rf"^\.BI? {re.escape(word)}(\\|$)", page, re.MULTILINE), word
    assert set(re.findall(r"--[a-z]+", page)) <= options


def test_the_page_for_consumers_names_every_kind() -> None:
    page = (ROOT / "docs/events.md").read_text()
    for kind in Kind:
        assert f"`{read_schema(kind)['title']}`" in page or f"| {kind} |" in page
