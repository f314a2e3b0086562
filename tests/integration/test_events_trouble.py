"""Brokers and files that misbehave: each is named once, and nothing is lost. Needs root."""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from testbed.bed import open_bed
from testbed.deadline import wait_for
from testbed.events import (
    FINAL,
    QUEUE,
    STATE,
    Consumer,
    Daemon,
    open_consumer,
    open_daemon,
    read_truth,
    remove_settings,
    submit,
    write_password,
    write_settings,
)
from testbed.false_broker import Manner, open_false_broker
from testbed.ganeti import Cluster, add_node, create_cluster, fail_over_master
from testbed.namespaces import call_in_network, make_enter_network_argv
from testbed.rabbitmq import PASSWORD, USER, Broker, open_brokers
from testbed.roots import BUILD
from testbed.wire import ADDRESS

SECONDS = 180.0
DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0, "on_master": True}
DOCUMENTATION = Path(__file__).parents[2] / "docs/events.md"
QUICK = "connect_timeout = 3\nconfirm_timeout = 3\n"
TLS = """\
listeners.ssl.default = {address}:5671
ssl_options.cacertfile = /etc/rabbitmq/ca.pem
ssl_options.certfile = /etc/rabbitmq/broker.pem
ssl_options.keyfile = /etc/rabbitmq/broker.key
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A certificate that is its own authority, for the first broker's address."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=broker1", "-addext", "subjectAltName=IP:10.78.0.61"),
            *("-keyout", folder / "key", "-out", folder / "certificate"),
        ],
        check=True,
        capture_output=True,
    )
    certificate = (folder / "certificate").read_bytes()
    return {"ca.pem": certificate, "broker.pem": certificate,
            "broker.key": (folder / "key").read_bytes()}  # fmt: skip


@pytest.fixture(scope="module")
def broker(cluster: Cluster, certificates: dict[str, bytes]) -> Iterator[Broker]:
    files = {f"/etc/rabbitmq/{name}": content for name, content in certificates.items()}
    more = TLS.format(address="10.78.0.61")
    with open_brokers(cluster.bed, more=more, files=files) as (only,):
        yield only


@pytest.fixture
def daemon(cluster: Cluster, broker: Broker, tmp_path: Path) -> Iterator[Daemon]:
    """Not started, without a cursor; the broker has no queue that takes its events."""
    write_settings(cluster.node, [broker.address])
    with open_daemon(cluster.node, tmp_path / "daemon.log") as opened:
        yield opened
    with_channel(cluster, broker, lambda channel: channel.queue_delete("test"))


def with_channel(cluster: Cluster, broker: Broker, action: Callable[[Any], Any]) -> None:
    """Do something on the broker, as a client of it."""

    def act() -> None:
        credentials = pika.PlainCredentials(USER, PASSWORD)
        parameters = pika.ConnectionParameters(broker.address, credentials=credentials)
        with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
            action(connection.channel())

    call_in_network(cluster.bed.wire.machine.pid, act)


def wait_for_log(daemon: Daemon, text: str) -> None:
    wait_for(text, lambda: re.search(text, daemon.read_log()), SECONDS, explain=daemon.read_log)


def wait_for_truth(consumer: Consumer, cluster: Cluster) -> None:
    def is_true() -> bool:
        return consumer.finals >= read_truth(cluster.node)

    wait_for("every final state", is_true, SECONDS, interval=0.2)
    assert consumer.finals == read_truth(cluster.node)


def wait_for_retries(daemon: Daemon, metric: str, count: int = 2) -> None:
    """Until the daemon has tried again some times."""
    before = daemon.read_metrics().get(metric, 0)
    wait_for(metric, lambda: daemon.read_metrics().get(metric, 0) >= before + count, SECONDS)


def test_wrong_credentials_are_named_and_mended_without_a_restart(
    cluster: Cluster, broker: Broker, daemon: Daemon
) -> None:
    write_password(cluster.node, "planted-wrong-password")
    daemon.start()
    reason = r"no broker: 10\.78\.0\.61: .*(ACCESS_REFUSED|auth)"
    wait_for_log(daemon, reason)
    assert "transport  FAILED" in daemon.run("check", ok=(1,))
    with open_consumer(cluster.bed, [broker]) as consumer:
        assert consumer.events == []
        write_password(cluster.node, PASSWORD)
        wait_for_truth(consumer, cluster)
    assert len(re.findall("no broker", daemon.read_log())) == 1
    assert "planted" not in daemon.read_log()


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        (Manner.SILENT, "took a message and did not confirm it in 3 s"),
        (Manner.MUTE, r"no broker: .*: no answer within 3 s"),
    ],
)
def test_a_broker_that_never_answers_is_left(
    cluster: Cluster, broker: Broker, daemon: Daemon, manner: Manner, reason: str
) -> None:
    """Another host of the settings takes over."""
    with open_false_broker(cluster.bed, manner) as false:
        write_settings(cluster.node, [f"{ADDRESS}:{false.port}"], amqp=QUICK)
        daemon.start()
        wait_for_log(daemon, reason)
        wait_for("what waits", lambda: daemon.read_metrics()["pending"] > 0, SECONDS)
        assert daemon.read_metrics()["confirmed_total"] == 0
        daemon.kill()
        hosts = [f"{ADDRESS}:{false.port}", broker.address]
        write_settings(cluster.node, hosts, amqp=QUICK)
        daemon.start()
        with open_consumer(cluster.bed, [broker]) as consumer:
            wait_for_truth(consumer, cluster)


def test_what_nobody_takes_is_kept(cluster: Cluster, broker: Broker, daemon: Daemon) -> None:
    write_settings(cluster.node, [broker.address], first="rescan_interval = 1")
    daemon.start()
    wait_for_log(daemon, "nobody takes messages with routing key ganeti.event.job")
    wait_for_retries(daemon, "unroutable_total")
    assert daemon.read_metrics()["parked"] > 0
    assert daemon.read_log().count("routing key ganeti.event.job;") == 1
    with open_consumer(cluster.bed, [broker]) as consumer:
        wait_for_truth(consumer, cluster)
    wait_for("nothing", lambda: daemon.read_metrics()["pending"] == 0, SECONDS)


def test_a_full_queue_is_waited_for(cluster: Cluster, broker: Broker, daemon: Daemon) -> None:
    def fill(channel: Any) -> None:
        channel.exchange_declare("ganeti", "topic", durable=True)
        limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full", durable=True, arguments=limits)
        channel.queue_bind("full", "ganeti", "#")
        channel.basic_publish("ganeti", "x", b"{}")

    with_channel(cluster, broker, fill)
    try:
        with open_consumer(cluster.bed, [broker]) as consumer:
            daemon.start()
            wait_for_log(daemon, r"refuses messages \(nack\): a queue is full")
            wait_for_retries(daemon, "unconfirmed_total")
            with_channel(cluster, broker, lambda channel: channel.queue_delete("full"))
            wait_for_truth(consumer, cluster)
            assert len(re.findall("nack", daemon.read_log())) == 1
    finally:
        with_channel(cluster, broker, lambda channel: channel.queue_delete("full"))


def test_a_channel_that_the_broker_closes_is_opened_again(
    cluster: Cluster, broker: Broker, daemon: Daemon
) -> None:
    """The exchange is deleted under the daemon, which declares it again."""
    with open_consumer(cluster.bed, [broker]) as consumer:
        daemon.start()
        wait_for_truth(consumer, cluster)
    with_channel(cluster, broker, lambda channel: channel.exchange_delete("ganeti"))
    submit(cluster.node, [[DELAY]])
    wait_for_log(daemon, "no exchange 'ganeti'")
    with open_consumer(cluster.bed, [broker]) as consumer:
        last = max(read_truth(cluster.node))
        wait_for("the job", lambda: last in consumer.finals, SECONDS, explain=daemon.read_log)


def test_tls_checks_the_broker(
    cluster: Cluster, broker: Broker, daemon: Daemon, certificates: dict[str, bytes]
) -> None:
    write_settings(cluster.node, [broker.address], amqp="tls = true")
    daemon.start()
    wait_for_log(daemon, "(?i)certificate")
    daemon.kill()
    cluster.node.write("/etc/snf-ganeti-eventd/ca.pem", certificates["ca.pem"])
    ca = 'tls = true\nca_file = "/etc/snf-ganeti-eventd/ca.pem"'
    write_settings(cluster.node, [broker.address], amqp=ca)
    daemon.start()
    with open_consumer(cluster.bed, [broker]) as consumer:
        wait_for_truth(consumer, cluster)
    wait_for_log(daemon, "publishing to amqps://")


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
        wait_for_truth(consumer, cluster)
        assert daemon.stop() == 0
        cluster.node.run("truncate", "--size=-20", f"{STATE}/cursor")
        before = len(consumer.events)
        daemon.start()
        total = len(read_truth(cluster.node))
        wait_for("all again", lambda: len(consumer.events) >= before + total, SECONDS)
        first, again = consumer.events[:before], consumer.events[before:]
        assert {event.id for event in again} <= {event.id for event in first}
    assert "cursor: its checksum is wrong" in daemon.read_log()
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
        wait_for_truth(consumer, cluster)
        before = len(consumer.events)
        last = max(read_truth(cluster.node))
        assert "published 1 messages" in daemon.run("replay", "--job", str(last[0]))
        wait_for("it", lambda: len(consumer.events) > before, SECONDS)
        again = consumer.events[-1]
        assert again.id in {event.id for event in consumer.events[:before]}
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
        lines = path.read_text().splitlines() if path.exists() else []
        bodies = [json.loads(line)["event"] for line in lines]
        keys = ("jobId", "opIndex", "operation", "status")
        return {_make_fact(*(body[key] for key in keys)) for body in bodies if is_final(body)}

    daemon.start()
    wait_for("the truth", lambda: read_finals() == read_truth(cluster.node), SECONDS)
    assert daemon.stop() == 0


def feed(cluster: Cluster, lines: list[dict[str, Any]], output: Path) -> float:
    """Give lines to the progress monitor, as snf-image does; gives the seconds that it took."""
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    begin = time.monotonic()
    done = cluster.node.run("snf-progress-monitor", "snf-7", stdin=data, timeout=120)
    output.write_text(done.stderr)
    return time.monotonic() - begin


def test_progress_is_published_and_waits_for_nobody(
    cluster: Cluster, broker: Broker, daemon: Daemon, tmp_path: Path
) -> None:
    copy = {"type": "image-copy-progress", "position": 1, "total": 2, "progress": 50.0,
            "timestamp": 4e9}  # fmt: skip
    lines = [{"type": "image-info", "messages": ["begin"], "timestamp": 4e9}, copy, copy]
    with open_consumer(cluster.bed, [broker], keys=["ganeti.snf.event.progress"]) as consumer:
        feed(cluster, lines, tmp_path / "shown")
        wait_for("progress", lambda: len(consumer.events) == 3, SECONDS)
        assert [event.body["sequence"] for event in consumer.events] == [1, 2, 3]
        assert consumer.events[1].body["event_time"] == [0, 2]
        assert '"begin"' in (tmp_path / "shown").read_text()

    with open_false_broker(cluster.bed, Manner.SILENT) as false:
        write_settings(cluster.node, [f"{ADDRESS}:{false.port}"])
        seconds = feed(cluster, [copy] * 2000, tmp_path / "silent")
    assert "messages were not published" in (tmp_path / "silent").read_text()
    assert seconds < 30  # 3 of its own, and a slow machine's


def test_the_consumer_of_the_documentation(
    cluster: Cluster, broker: Broker, daemon: Daemon, tmp_path: Path
) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    assert len(script.splitlines()) <= 60
    (tmp_path / "consumer.py").write_text(script)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    shown = tmp_path / "shown"
    argv = [sys.executable, str(tmp_path / "consumer.py"), broker.address, USER,
            str(tmp_path / "password")]  # fmt: skip
    with (
        shown.open("w") as output,
        subprocess.Popen(
            make_enter_network_argv(cluster.bed.wire.machine.pid, argv),
            stdout=output, stderr=output,
        ) as child,
    ):  # fmt: skip
        try:
            daemon.start()
            expected = {f"{job} {status} {operation}"
                        for job, _, operation, status in read_truth(cluster.node)}  # fmt: skip
            wait_for("the consumer", lambda: all(
                line in shown.read_text() for line in expected), SECONDS,
                explain=shown.read_text)  # fmt: skip
        finally:
            child.terminate()
    with_channel(cluster, broker, lambda channel: channel.queue_delete("example-controller"))


def test_one_of_three_brokers_may_die(cluster: Cluster, tmp_path: Path) -> None:
    with (
        open_brokers(cluster.bed, 3, first=2) as brokers,
        open_consumer(cluster.bed, brokers) as consumer,
    ):
        write_settings(cluster.node, [each.address for each in brokers], amqp=QUICK)
        with open_daemon(cluster.node, tmp_path / "daemon.log") as daemon:
            daemon.start()
            wait_for_truth(consumer, cluster)
            address = re.findall(r"publishing to amqp://([0-9.]+),", daemon.read_log())[-1]
            (used,) = (each for each in brokers if each.address == address)
            used.machine.power_off()
            submit(cluster.node, [[DELAY]] * 3)
            wait_for_truth(consumer, cluster)


def test_no_event_is_lost_when_the_master_fails_over(root: None, tmp_path: Path) -> None:
    """What the old master's daemon had not published, the new one's does."""
    debs = sorted((BUILD / "deb").glob("*.deb"))
    with contextlib.ExitStack() as stack:
        bed = stack.enter_context(open_bed(f"failover-{os.getpid()}", debs=debs))
        cluster = create_cluster(bed)
        nodes = [cluster.node, add_node(cluster, 2), add_node(cluster, 3)]
        (broker,) = stack.enter_context(open_brokers(bed))
        consumer = stack.enter_context(open_consumer(bed, [broker]))
        daemons = []
        for index, node in enumerate(nodes[:2], 1):
            write_settings(node, [broker.address])
            log = tmp_path / f"daemon{index}.log"
            daemons.append(stack.enter_context(open_daemon(node, log)))
            daemons[-1].start()
        old, new = daemons
        submit(cluster.node, [[DELAY]] * 3)
        wait_for_truth(consumer, cluster)
        assert new.read_metrics()["published_total"] == 0

        old.kill()
        submit(cluster.node, [[DELAY]] * 3)
        unseen = read_truth(cluster.node) - consumer.finals
        assert len(unseen) == 3
        known_before = read_truth(cluster.node)
        cluster = fail_over_master(cluster, 2)
        old.start()
        submit(cluster.node, [[DELAY]] * 2)

        def read_all() -> set[tuple[int, int, str, str]]:
            """Node 2 has no jobs from before it joined."""
            return known_before | read_truth(cluster.node)

        wait_for("every final state", lambda: consumer.finals >= read_all(), SECONDS)
        assert consumer.finals == read_all()
        assert unseen <= consumer.finals
        wait_for("the old master", lambda: old.read_metrics()["master"] == 0, SECONDS)
        assert old.read_metrics()["published_total"] == 0
        by_id = itertools.groupby(sorted(consumer.events, key=lambda each: each.id),
                                  key=lambda each: each.id)  # fmt: skip
        assert all(len({event.fact for event in events}) == 1 for _, events in by_id)
