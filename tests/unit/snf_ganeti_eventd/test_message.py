"""Facts as messages."""

import json
from typing import Any

import pytest

from snf_ganeti_eventd.jobs.job import STATUSES, make_event_time
from snf_ganeti_eventd.messages.message import (
    Message,
    find_news,
    make_id,
    make_messages,
    make_prefix,
)
from unit.snf_ganeti_eventd.jobs import make_job, make_op

CLUSTER = "c1.example"
DETAILS: dict[str, Any] = {"instance_nics": [], "instance_disks": [], "instance_hvparams": {}}


def make(op: dict[str, Any], known: str = "", job_id: int = 901) -> list[Message]:
    job = make_job(job_id, op)
    (read,) = job.ops
    return make_messages(job, read, known, CLUSTER, make_event_time(job, read), DETAILS)


def make_one(op: dict[str, Any]) -> Message:
    (message,) = make(op)
    return message


@pytest.mark.parametrize(
    ("op", "key", "kind"),
    [
        (make_op("OP_INSTANCE_STARTUP", instance_name="snf-7"), "ganeti.snf.event.op",
         "ganeti-op-status"),
        (make_op("OP_INSTANCE_STARTUP", instance_name="counter"), "ganeti.counter.event.op",
         "ganeti-op-status"),
        (make_op("OP_INSTANCE_STARTUP", instance_name="web.my-site.example"),
         "ganeti.web.event.op", "ganeti-op-status"),
        (make_op("OP_TAGS_SET", kind="instance", name="snf-7", tags=["a"]),
         "ganeti.snf.event.op", "ganeti-op-status"),
        (make_op("OP_NETWORK_CONNECT", network_name="snf-net-2"), "ganeti.snf.event.network",
         "ganeti-network-status"),
        (make_op("OP_CLUSTER_SET_PARAMS"), "ganeti.event.cluster", "ganeti-cluster-status"),
        (make_op("OP_GROUP_ADD", group_name="g"), "ganeti.event.group", "ganeti-group-status"),
        (make_op("OP_NODE_SET_PARAMS", node_name="n"), "ganeti.event.node", "ganeti-node-status"),
        (make_op("OP_BACKUP_EXPORT", instance_name="snf-7"), "ganeti.snf.event.backup",
         "ganeti-backup-status"),
        (make_op("OP_CLUSTER_VERIFY"), "ganeti.event.job", "ganeti-job-status"),
        (make_op("OP_INSTANCE_MULTI_ALLOC", instances=[]), "ganeti.event.job",
         "ganeti-job-status"),
        (make_op("OP_TAGS_SET", kind="node", name="n", tags=["a"]), "ganeti.event.job",
         "ganeti-job-status"),
        (make_op("OP_FROM_THE_FUTURE", instance_name="x"), "ganeti.event.job",
         "ganeti-job-status"),
    ],
)  # fmt: skip
def test_each_operation_has_its_key_and_type(op: dict[str, Any], key: str, kind: str) -> None:
    message = make_one(op)
    assert (message.key, message.body["type"]) == (key, kind)


@pytest.mark.parametrize("name", ["", "-x", ".", "ä", "a b", "x" * 300, "#", "*"])
def test_a_prefix_is_one_word_of_a_routing_key(name: str) -> None:
    assert 1 <= len(make_prefix(name)) <= 63
    assert not set(make_prefix(name)) & set(".#*- ")


def test_the_same_fact_has_the_same_id() -> None:
    op = make_op("OP_INSTANCE_STARTUP", instance_name="snf-7")
    assert make_one(op) == make_one(op)
    assert make_one(op).id == "c1.example/901/0/success"
    assert len(make_id("c" * 253, 1 << 62, 99, "canceling").encode()) <= 255
    assert make_id("c" * 253, 1, 0, "error") != make_id("d" * 253, 1, 0, "error")


def test_tags_of_an_instance_are_told_once_they_are_set() -> None:
    for status in STATUSES:
        op = make_op("OP_TAGS_DEL", status, kind="instance", name="snf-7", tags=["t"])
        messages = make(op)
        assert len(messages) == (status in ("success", "error", "canceled"))
        assert all(message.body["tags"] == ["t"] for message in messages)


def test_a_heartbeat_is_sent_once_even_when_its_waiting_was_missed() -> None:
    tags: dict[str, Any] = {"kind": "cluster", "dry_run": True, "tags": ["snf:eventd:heartbeat:17"]}
    assert make(make_op("OP_TAGS_SET", "queued", **tags)) == []
    (beat,) = make(make_op("OP_TAGS_SET", "waiting", **tags))
    assert (beat.key, beat.body["type"]) == ("eventd.heartbeat", "eventd-heartbeat")
    late = make(make_op("OP_TAGS_SET", "success", **tags), known="queued")
    assert [each.key for each in late] == ["eventd.heartbeat", "ganeti.event.job"]
    assert late[0].id == beat.id
    (last,) = make(make_op("OP_TAGS_SET", "success", **tags), known="waiting")
    assert last.key == "ganeti.event.job"
    (real,) = make(make_op("OP_TAGS_SET", "success", **{**tags, "dry_run": False}))
    assert real.key == "ganeti.event.job"


@pytest.mark.parametrize(
    ("op_id", "status", "wanted"),
    [
        ("OP_INSTANCE_CREATE", "success", True),
        ("OP_INSTANCE_CREATE", "error", False),
        ("OP_INSTANCE_STARTUP", "success", True),
        ("OP_INSTANCE_STARTUP", "running", False),
        ("OP_INSTANCE_SET_PARAMS", "success", True),
        ("OP_INSTANCE_SET_PARAMS", "canceled", True),
        ("OP_INSTANCE_SET_PARAMS", "error", True),
        ("OP_INSTANCE_GROW_DISK", "error", True),
        ("OP_INSTANCE_REMOVE", "success", False),
    ],
)
def test_details_come_with_what_changed_them(op_id: str, status: str, wanted: bool) -> None:
    body = make_one(make_op(op_id, status, instance_name="snf-7")).body
    assert ("instance_nics" in body) is wanted


def test_a_failed_creation_has_what_sends_it_again_but_no_secret() -> None:
    op = make_op(
        "OP_INSTANCE_CREATE",
        "error",
        instance_name="snf-7",
        opportunistic_locking=True,
        nics=[{"ip": "pool", "network": "snf-net-2", "secret": "planted1"}],
        disks=[{"size": 1024, "provider": "rados", "password": "planted2"}],
        hvparams={"boot_order": "disk", "kernel_args": "planted3"},
        osparams={"img_id": "planted4", "img_properties": '{"key": "planted5"}'},
        osparams_private={"img_passwd": "planted6"},
        result=[
            "OpPrereqError",
            ["no room for planted6 and planted5", "temp_insufficient_resources"],
        ],
        log=[[1, [1, 1], "message", "wrote 'planted4'"]],
    )
    body = make_one(op).body
    fields = body["job_fields"]
    assert fields["nics"] == [{"network": "snf-net-2", "ip": "pool"}]
    assert fields["disks"] == [{"size": 1024, "provider": "rados"}]
    assert fields["hvparams"] == {"boot_order": "disk"}
    assert fields["opportunistic_locking"] is True
    assert body["result"] == [
        "OpPrereqError", ["no room for [redacted] and [redacted]", "temp_insufficient_resources"]
    ]  # fmt: skip
    assert body["logmsg"] == "wrote '[redacted]'"
    assert "planted" not in json.dumps(body)
    assert make_one(op).redacted == 7


@pytest.mark.parametrize(
    ("op_id", "result", "published"),
    [
        ("OP_INSTANCE_CREATE", ["node1", "node2"], ["node1", "node2"]),
        ("OP_INSTANCE_SET_PARAMS", [["os/k", "secret"], ["mem", 4]], [["os/k", None], ["mem", 4]]),
        ("OP_INSTANCE_SET_PARAMS", [["x"], "y", [1, 2]], []),
        ("OP_INSTANCE_QUERY_DATA", {"snf-7": {"osparams": {"img_passwd": "secret"}}}, None),
        ("OP_CLUSTER_VERIFY", True, True),
        ("OP_X", "secret", None),
    ],
)  # fmt: skip
def test_of_a_result_only_the_harmless_is_published(
    op_id: str, result: Any, published: Any
) -> None:
    assert make_one(make_op(op_id, result=result)).body["result"] == published


def test_a_snapshots_reason_is_its_controllers() -> None:
    op = make_op("OP_INSTANCE_SNAPSHOT", instance_name="snf-7", disks=[[0, {"name": "s"}]],
                 reason=[["gnt:user", '{"snapshot_id": 3}', 1]])  # fmt: skip
    assert make_one(op).body["job_fields"] == {
        "disks": [[0, {"name": "s"}]], "snapshot_info": '{"snapshot_id": 3}'
    }  # fmt: skip
    op["input"]["reason"] = [["gnt:opcode", "x", 1]]
    assert make_one(op).body["job_fields"]["snapshot_info"] is None


def test_news_is_what_is_not_known() -> None:
    job = make_job(1, make_op("OP_A"), make_op("OP_B", "running"), make_op("OP_C", "queued"))
    assert [op.index for op in find_news(job, ())] == [0, 1, 2]
    assert [op.index for op in find_news(job, ["success", "waiting"])] == [1, 2]
    assert [op.index for op in find_news(job, ["error", "running", "queued"])] == []


def test_a_state_of_a_newer_ganeti_is_left_until_it_passes() -> None:
    assert find_news(make_job(1, {**make_op("OP_A"), "status": "dancing"}), ()) == []
