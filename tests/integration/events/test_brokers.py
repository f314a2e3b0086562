"""Brokers that misbehave: each is named once, and nothing is lost. Needs root."""

import re
from pathlib import Path
from typing import Any

import pytest

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
    CA_FILE,
    QUICK,
    Daemon,
    open_consumer,
    open_daemon,
    write_password,
    write_settings,
)
from testbed.false_broker import Manner, open_false_broker
from testbed.ganeti import Cluster
from testbed.rabbitmq import PASSWORD, Broker, open_brokers
from testbed.wire import ADDRESS


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
        wait_for_truth(consumer, cluster.node)
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
            wait_for_truth(consumer, cluster.node)


def test_what_nobody_takes_is_kept(cluster: Cluster, broker: Broker, daemon: Daemon) -> None:
    write_settings(cluster.node, [broker.address], first="rescan_interval = 1")
    daemon.start()
    wait_for_log(daemon, "nobody takes messages with routing key ganeti.event.job")
    wait_for_retries(daemon, "unroutable_total")
    assert daemon.read_metrics()["parked"] > 0
    assert daemon.read_log().count("routing key ganeti.event.job;") == 1
    with open_consumer(cluster.bed, [broker]) as consumer:
        wait_for_truth(consumer, cluster.node)
    wait_for("nothing", lambda: daemon.read_metrics()["pending"] == 0, SECONDS)


def test_a_full_queue_is_waited_for(cluster: Cluster, broker: Broker, daemon: Daemon) -> None:
    def fill(channel: Any) -> None:
        channel.exchange_declare("ganeti", "topic", durable=True)
        limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("full", durable=True, arguments=limits)
        channel.queue_bind("full", "ganeti", "#")
        channel.basic_publish("ganeti", "x", b"{}")

    broker.call(fill)
    try:
        with open_consumer(cluster.bed, [broker]) as consumer:
            daemon.start()
            wait_for_log(daemon, r"refuses messages \(nack\): a queue is full")
            wait_for_retries(daemon, "unconfirmed_total")
            broker.call(lambda channel: channel.queue_delete("full"))
            wait_for_truth(consumer, cluster.node)
            assert len(re.findall("nack", daemon.read_log())) == 1
    finally:
        broker.call(lambda channel: channel.queue_delete("full"))


def test_a_channel_that_the_broker_closes_is_opened_again(
    cluster: Cluster, broker: Broker, daemon: Daemon
) -> None:
    """The exchange is deleted under the daemon, which declares it again."""
    with open_consumer(cluster.bed, [broker]) as consumer:
        daemon.start()
        wait_for_truth(consumer, cluster.node)
    broker.call(lambda channel: channel.exchange_delete("ganeti"))
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
    cluster.node.write(CA_FILE, certificates["ca.pem"])
    ca = f'tls = true\nca_file = "{CA_FILE}"'
    write_settings(cluster.node, [broker.address], amqp=ca)
    daemon.start()
    with open_consumer(cluster.bed, [broker]) as consumer:
        wait_for_truth(consumer, cluster.node)
    wait_for_log(daemon, "publishing to amqps://")


def test_one_of_three_brokers_may_die(cluster: Cluster, tmp_path: Path) -> None:
    with (
        open_brokers(cluster.bed, 3, first=2) as brokers,
        open_consumer(cluster.bed, brokers) as consumer,
    ):
        write_settings(cluster.node, [each.address for each in brokers], amqp=QUICK)
        with open_daemon(cluster.node, tmp_path / "daemon.log") as daemon:
            daemon.start()
            wait_for_truth(consumer, cluster.node)
            address = re.findall(r"publishing to amqp://([0-9.]+),", daemon.read_log())[-1]
            (used,) = (each for each in brokers if each.address == address)
            used.machine.power_off()
            submit(cluster.node, [[DELAY]] * 3)
            wait_for_truth(consumer, cluster.node)
