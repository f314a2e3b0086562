"""What lies on the node: files that are no jobs, the cursor, the log of events. Needs root."""

import json
from typing import Any

from testbed.deadline import wait_for
from testbed.event_story import (
    DELAY,
    SECONDS,
    read_truth,
    submit,
    wait_for_log,
    wait_for_retries,
    wait_for_truth,
)
from testbed.events import (
    FINAL,
    QUEUE,
    STATE,
    Daemon,
    open_consumer,
    remove_settings,
    write_settings,
)
from testbed.ganeti import Cluster
from testbed.rabbitmq import Broker


def test_files_that_are_no_jobs_are_named_once(
    cluster: Cluster, broker: Broker, daemon: Daemon
) -> None:
    write_settings(cluster.node, [broker.address], first="rescan_interval = 1")
    bad = {
        "job-900001": b'{"id": 900001, "ops": [{"input": {"x": "planted-secret"',
        "job-900002": b"\xff\xfe\x00garbage",
        "job-900003": b"",
        "job-900004.tmp": b"foreign",
        "job-abc": b"foreign",
    }
    for name, content in bad.items():
        cluster.node.run("install", "--owner=gnt-masterd", "--group=gnt-daemons", "--mode=640",
                         "/dev/stdin", f"{QUEUE}/{name}", stdin=content)  # fmt: skip
    try:
        with open_consumer(cluster.bed, [broker]) as consumer:
            daemon.start()
            wait_for("the jobs", lambda: consumer.finals, SECONDS)
            wait_for_retries(daemon, 'rescans_total{reason="timer"}')
            for number in (900001, 900002, 900003):
                assert daemon.read_log().count(f"job {number} is not whole JSON") == 1
            assert "planted" not in daemon.read_log()
            assert json.loads(daemon.run("status", "--json"))["unreadable"] == 3
    finally:
        cluster.node.run("rm", *(f"{QUEUE}/{name}" for name in bad))


def test_a_damaged_cursor_is_put_aside_and_all_is_told_again(
    cluster: Cluster, broker: Broker, daemon: Daemon
) -> None:
    with open_consumer(cluster.bed, [broker]) as consumer:
        daemon.start()
        wait_for_truth(consumer, cluster.node)
        assert daemon.stop() == 0
        cluster.node.run("truncate", "--size=-20", f"{STATE}/cursor")
        before = len(consumer.events)
        daemon.start()
        total = len(read_truth(cluster.node))
        wait_for("all again", lambda: len(consumer.events) >= before + total, SECONDS)
        first, again = consumer.events[:before], consumer.events[before:]
        assert {event.id for event in again} <= {event.id for event in first}
    assert "cursor: its checksum is wrong" in daemon.read_log()
    assert daemon.stop() == 0  # it writes no cursor now
    assert cluster.node.run("ls", STATE).text.split() == ["cursor", "cursor.unusable", "lock"]


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    daemon.start()
    wait_for_log(daemon, "this node is the master")
    assert daemon.run("run", ok=(6,)) == ""


def test_replay_publishes_again_with_the_same_ids(
    cluster: Cluster, broker: Broker, daemon: Daemon
) -> None:
    with open_consumer(cluster.bed, [broker]) as consumer:
        daemon.start()
        submit(cluster.node, [[DELAY]])
        wait_for_truth(consumer, cluster.node)
        before = len(consumer.events)
        last = max(read_truth(cluster.node))
        assert "published 1 messages" in daemon.run("replay", "--job", str(last[0]))
        known = {event.id for event in consumer.events[:before] if event.is_final}
        wait_for("it", lambda: [each for each in consumer.events[before:] if each.id in known],
                 SECONDS)  # fmt: skip
        (again,) = (each for each in consumer.events[before:] if each.is_final)
        assert again.fact == last
        daemon.run("replay", "--since", "1d")
        wait_for("all", lambda: len(consumer.events) > before + len(consumer.finals), SECONDS)


def is_final(body: dict[str, Any]) -> bool:
    return body["status"] in FINAL


def _make_fact(job: int, index: int, operation: str, status: str) -> tuple[int, int, str, str]:
    return job, index, operation, status


def test_without_a_broker_events_are_lines_of_a_file(cluster: Cluster, daemon: Daemon) -> None:
    """The shipped settings."""
    remove_settings(cluster.node)
    path = cluster.node.upper / "var/log/snf-ganeti-eventd/events.jsonl"

    def read_finals() -> set[tuple[int, int, str, str]]:
        whole, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
        lines = whole.splitlines()
        bodies = [json.loads(line)["event"] for line in lines]
        keys = ("jobId", "opIndex", "operation", "status")
        return {_make_fact(*(body[key] for key in keys)) for body in bodies if is_final(body)}

    daemon.start()
    wait_for("the truth", lambda: read_finals() == read_truth(cluster.node), SECONDS)
    assert daemon.stop() == 0
