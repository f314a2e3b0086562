"""Events of real Ganeti jobs on a real RabbitMQ, from the installed package. Needs root.

What should have been seen is read from Ganeti's own job files; what was seen, by pika.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.deadline import wait_for
from testbed.events import (
    Consumer,
    Daemon,
    open_consumer,
    open_daemon,
    read_truth,
    submit,
    write_settings,
)
from testbed.ganeti import Cluster
from testbed.rabbitmq import Broker, open_brokers

SECONDS = 90.0
DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0, "on_master": True}


@pytest.fixture(scope="module")
def broker(cluster: Cluster) -> Iterator[Broker]:
    with open_brokers(cluster.bed) as (only,):
        yield only


@pytest.fixture
def consumer(cluster: Cluster, broker: Broker) -> Iterator[Consumer]:
    with open_consumer(cluster.bed, [broker]) as opened:
        yield opened


@pytest.fixture
def daemon(cluster: Cluster, broker: Broker, tmp_path: Path) -> Iterator[Daemon]:
    write_settings(cluster.node, [broker])
    with open_daemon(cluster.node, tmp_path / "daemon.log") as opened:
        yield opened


def wait_for_truth(cluster: Cluster, consumer: Consumer) -> None:
    """Until the consumer has seen the final state of all that ended."""

    def is_true() -> bool:
        return consumer.finals >= read_truth(cluster.node)

    def explain() -> str:
        return f"missing: {sorted(read_truth(cluster.node) - consumer.finals)[:9]}"

    wait_for("every final state", is_true, SECONDS, interval=0.2, explain=explain)
    assert consumer.finals == read_truth(cluster.node)


def count_pending(daemon: Daemon, *, ok: tuple[int, ...] = (0,)) -> int:
    pending: int = json.loads(daemon.run("status", "--json", ok=ok))["pending"]
    return pending


def test_jobs_are_told_as_they_happen(cluster: Cluster, consumer: Consumer, daemon: Daemon) -> None:
    daemon.start()
    wait_for_truth(cluster, consumer)
    submit(cluster.node, [[DELAY, DELAY]] * 5)
    wait_for_truth(cluster, consumer)
    ids = [event.id for event in consumer.events]
    assert len(ids) == len(set(ids))

    assert daemon.stop() == 0
    submit(cluster.node, [[DELAY]])
    assert count_pending(daemon, ok=(1,)) == 1
    daemon.start()
    wait_for_truth(cluster, consumer)
    figures = daemon.read_metrics()
    assert figures["confirmed_total"] == 1 == figures["master"]
    wait_for("the cursor", lambda: count_pending(daemon) == 0, 30)
    assert "FAILED" not in daemon.run("check")
    assert "error" not in daemon.read_log()
