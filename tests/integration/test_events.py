"""Events of real Ganeti jobs on a real RabbitMQ, from the installed package. Needs root.

What should have been seen is read from Ganeti's own job files; what was seen, by pika.
With SNF_SOAK=1 (`make soak`) the long history is 300 jobs and 50 kills.
"""

import contextlib
import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snf_ganeti.errors import CommandError, DeadlineError
from testbed.deadline import wait_for
from testbed.events import (
    QUEUE,
    Consumer,
    Daemon,
    open_consumer,
    open_daemon,
    open_tail,
    read_truth,
    submit,
    write_settings,
)
from testbed.ganeti import Cluster
from testbed.rabbitmq import Broker, open_brokers

SECONDS = 180.0
IS_SOAK = os.environ.get("SNF_SOAK", "") not in ("", "0")
JOBS, KILLS = (300, 50) if IS_SOAK else (60, 10)
DOCUMENTATION = Path(__file__).parents[2] / "docs/events.md"

DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0, "on_master": True}
BLANK_OS = {
    "ganeti_api_version": "20\n",
    "parameters.list": "img_key a key\nimg_passwd a password\nimg_token a token\n",
    "variants.list": "",
    **dict.fromkeys(("create", "import", "export", "rename", "verify"), "#!/bin/sh\nexit 0\n"),
}


@pytest.fixture(scope="module")
def ganeti(cluster: Cluster) -> Cluster:
    """The cluster, with an OS definition that does nothing."""
    for name, content in BLANK_OS.items():
        cluster.node.write(f"/usr/share/ganeti/os/events/{name}", content, mode=0o755)
    return cluster


@pytest.fixture(scope="module")
def broker(ganeti: Cluster) -> Iterator[Broker]:
    with open_brokers(ganeti.bed) as (only,):
        yield only


@pytest.fixture
def consumer(ganeti: Cluster, broker: Broker) -> Iterator[Consumer]:
    with open_consumer(ganeti.bed, [broker]) as opened:
        yield opened


@pytest.fixture
def daemon(ganeti: Cluster, broker: Broker, tmp_path: Path) -> Iterator[Daemon]:
    """Not started, without a cursor: it publishes all that there is."""
    write_settings(ganeti.node, [broker.address])
    with open_daemon(ganeti.node, tmp_path / "daemon.log") as opened:
        yield opened


def wait_for_truth(ganeti: Cluster, consumer: Consumer) -> None:
    """Until the consumer has seen the final state of all that ended, and nothing else."""

    def is_true() -> bool:
        return consumer.finals >= read_truth(ganeti.node)

    def explain() -> str:
        return f"missing: {sorted(read_truth(ganeti.node) - consumer.finals)[:9]}"

    wait_for("every final state", is_true, SECONDS, interval=0.2, explain=explain)
    assert consumer.finals == read_truth(ganeti.node)


def wait_for_log(daemon: Daemon, text: str) -> None:
    wait_for(f"{text!r} in the log", lambda: text in daemon.read_log(), SECONDS,
             explain=daemon.read_log)  # fmt: skip


def count_pending(daemon: Daemon, *, ok: tuple[int, ...] = (0,)) -> int:
    pending: int = json.loads(daemon.run("status", "--json", ok=ok))["pending"]
    return pending


def make_create(name: str, **more: Any) -> dict[str, Any]:
    """An opcode that makes a diskless instance, off."""
    return {
        "OP_ID": "OP_INSTANCE_CREATE", "instance_name": name, "mode": "create",
        "disk_template": "diskless", "disks": [], "nics": [], "os_type": "events",
        "pnode": "node1.bed.test", "start": False, "name_check": False, "ip_check": False,
        "hypervisor": "kvm", "hvparams": {}, "beparams": {}, "osparams": {}, **more,
    }  # fmt: skip


def test_jobs_are_told_as_they_happen(ganeti: Cluster, consumer: Consumer, daemon: Daemon) -> None:
    daemon.start()
    wait_for_truth(ganeti, consumer)
    submit(ganeti.node, [[DELAY, DELAY]] * 3)
    wait_for_truth(ganeti, consumer)
    ids = [event.id for event in consumer.events]
    assert len(ids) == len(set(ids))

    assert daemon.stop() == 0
    submit(ganeti.node, [[DELAY]])
    assert count_pending(daemon, ok=(1,)) == 1
    daemon.start()
    wait_for_truth(ganeti, consumer)
    figures = daemon.read_metrics()
    assert (figures["confirmed_total"], figures["master"]) == (1, 1)
    wait_for("the cursor", lambda: count_pending(daemon) == 0, 30)
    assert "FAILED" not in daemon.run("check")
    assert "error" not in daemon.read_log()


def test_an_instance_is_told_with_its_nics_and_disks(
    ganeti: Cluster, consumer: Consumer, daemon: Daemon, tmp_path: Path
) -> None:
    """What `gnt-instance` says of it later is what the event said; `tail` shows the same."""
    daemon.start()
    wait_for_truth(ganeti, consumer)
    shown = tmp_path / "tail"
    with open_tail(ganeti.node, shown):
        create = make_create(
            "snf-42", disk_template="file", disks=[{"size": 16, "name": "snf-vol-1"}],
            nics=[{"ip": "10.78.0.77", "network": "testnet", "name": "snf-nic-1"}],
        )  # fmt: skip
        submit(ganeti.node, [[create]])
        wait_for_truth(ganeti, consumer)
        tag = {"OP_ID": "OP_TAGS_SET", "kind": "instance", "name": "snf-42",
               "tags": ["synnefo:network:snf-nic-1:limited"]}  # fmt: skip
        change = {"OP_ID": "OP_INSTANCE_SET_PARAMS", "instance_name": "snf-42",
                  "beparams": {"maxmem": 96}}  # fmt: skip
        submit(ganeti.node, [[tag, change]])
        wait_for("tail", lambda: "instance set params snf-42" in shown.read_text(), 60)
    wait_for_truth(ganeti, consumer)
    listed = json.loads(ganeti.node.read("/var/lib/ganeti/config.data"))
    (nic,) = next(each["nics"] for each in listed["instances"].values() if each["name"] == "snf-42")
    (made,) = consumer.find(operation="OP_INSTANCE_CREATE", instance="snf-42", status="success")
    expected = {"name": "snf-nic-1", "network": "testnet", "ip": "10.78.0.77", "mac": nic["mac"],
                "mode": "bridged", "link": "br0", "uuid": nic["uuid"]}  # fmt: skip
    assert made.key == "ganeti.snf.event.op"
    assert made.body["instance_nics"] == [expected]
    (disk,) = made.body["instance_disks"]
    assert (disk["name"], disk["size"]) == ("snf-vol-1", 16)
    (changed,) = consumer.find(operation="OP_INSTANCE_SET_PARAMS", status="success")
    assert changed.body["instance_nics"] == [{**expected, "firewall": "limited"}]
    assert "success   instance create snf-42: NIC 10.78.0.77; disk 16 MiB" in shown.read_text()
    ganeti.remove_instance("snf-42")


def test_no_secret_leaves_the_cluster(
    ganeti: Cluster, consumer: Consumer, daemon: Daemon, tmp_path: Path
) -> None:
    """Secrets in OS parameters and elsewhere of jobs that succeed and that fail, with the log at
    its most talkative."""
    options = (
        *("--disk-template=diskless", "--os-type=events", "--no-start"),
        "--os-parameters=img_key=planted-public",
        "--os-parameters-private=img_passwd=planted-private",
        "--os-parameters-secret=img_token=planted-secret",
        "--hypervisor-parameters=kvm:kernel_args=planted-args",
    )
    daemon.start("--debug")
    with open_tail(ganeti.node, tmp_path / "tail", "--json") as shown:
        ganeti.add_instance("snf-9", *options)
        with pytest.raises(CommandError):
            ganeti.add_instance("snf-9", *options)
        ganeti.run("gnt-instance", "modify", "--os-parameters=img_key=planted-other", "snf-9")
        wait_for_truth(ganeti, consumer)
        wait_for("tail", lambda: "SET_PARAMS" in shown.read_text(), SECONDS)
    raw = "".join(path.read_text() for path in (ganeti.node.upper / QUEUE[1:]).glob("job-*"))
    for secret in ("planted-public", "planted-args", "planted-other"):
        assert secret in raw  # what is private Ganeti keeps to itself, too
    assert consumer.find(operation="OP_INSTANCE_CREATE", instance="snf-9", status="error")
    everything = json.dumps([event.body for event in consumer.events])
    for text in (everything, daemon.read_log(), shown.read_text(), daemon.run("status")):
        assert "planted" not in text
    ganeti.remove_instance("snf-9")


def test_a_canceled_job_is_told(ganeti: Cluster, consumer: Consumer, daemon: Daemon) -> None:
    """It waits for a lock that another job holds."""

    def delay(seconds: int, status: str) -> int:
        """Submit a delay that holds the node's lock; gives its job once it is in a state."""
        known = {event.body["jobId"] for event in consumer.events}
        node = ganeti.node.hostname
        ganeti.run("gnt-debug", "delay", "--submit", "--no-master", "-n", node, str(seconds))

        def find() -> list[int]:
            delays = consumer.find(operation="OP_TEST_DELAY", status=status)
            return [each.body["jobId"] for each in delays if each.body["jobId"] not in known]

        return wait_for(f"a delay that is {status}", find, SECONDS)[0]

    daemon.start()
    wait_for_truth(ganeti, consumer)
    busy = delay(600, "running")
    waiting = delay(1, "waiting")
    ganeti.run("gnt-job", "cancel", str(waiting))
    wait_for("its end", lambda: consumer.find(jobId=waiting, status="canceled"), SECONDS)
    ganeti.run("gnt-job", "cancel", "--kill", "--yes-do-it", str(busy))
    wait_for_truth(ganeti, consumer)


class Trouble:
    """Everything that may happen to the daemon and its broker, at random, from a seed."""

    def __init__(self, ganeti: Cluster, broker: Broker, daemon: Daemon, seed: int) -> None:
        self.random = random.Random(seed)
        self.ganeti, self.broker, self.daemon = ganeti, broker, daemon
        self.kills = 0

    def wait_for_events(self, consumer: Consumer, before: int) -> None:
        """The next comes after some more events, or when there are none."""
        target = before + self.random.randrange(40)
        with contextlib.suppress(DeadlineError):
            wait_for("events", lambda: len(consumer.events) >= target, 3)

    def kill_daemon(self) -> None:
        self.daemon.kill()
        self.kills += 1
        self.daemon.start()

    def overflow(self) -> None:
        """More changes than inotify keeps, while the daemon can't read them."""
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        script = (
            "import os, sys\nos.chdir(sys.argv[1])\nopen('x0', 'w')\n"
            "for n in range(int(sys.argv[2])): os.rename(f'x{n % 2}', f'x{(n + 1) % 2}')\n"
            "os.unlink(f'x{int(sys.argv[2]) % 2}')"
        )
        os.kill(self.daemon.pid, signal.SIGSTOP)
        self.ganeti.node.run("python3", "-c", script, QUEUE, str(limit + 10))
        submit(self.ganeti.node, [[DELAY]])
        os.kill(self.daemon.pid, signal.SIGCONT)

    def archive(self) -> None:
        self.ganeti.run("gnt-job", "autoarchive", "all")

    def restart_broker(self) -> None:
        self.broker.stop()
        self.broker.start()

    def kill_broker(self) -> None:
        self.broker.kill()
        self.broker.start()

    def cut_connection(self) -> None:
        """The cable of the node, for a while."""
        self.ganeti.bed.wire.set_cable(self.ganeti.node, up=False)
        self.kill_daemon()
        self.ganeti.bed.wire.set_cable(self.ganeti.node, up=True)


def make_history(count: int, seed: int) -> list[list[dict[str, Any]]]:
    """Jobs of all sorts: creations, failures, changes of tags and networks, removals."""
    chance = random.Random(seed)
    jobs: list[list[dict[str, Any]]] = []
    for number in range(count):
        name, network = f"snf-{1000 + number}", f"snf-net-{number}"
        tags = {"kind": "instance", "name": name, "tags": [f"tag{number}"]}
        jobs.append(chance.choice([
            [make_create(name), {"OP_ID": "OP_TAGS_SET", **tags},
             {"OP_ID": "OP_TAGS_DEL", **tags}, {"OP_ID": "OP_INSTANCE_REMOVE",
             "instance_name": name, "ignore_failures": True, "shutdown_timeout": 0}],
            [make_create(name, os_type="no-such-os"), DELAY],
            [{"OP_ID": "OP_NETWORK_ADD", "network_name": network, "network": "192.0.2.0/24"},
             {"OP_ID": "OP_NETWORK_REMOVE", "network_name": network}],
            [{"OP_ID": "OP_CLUSTER_SET_PARAMS", "candidate_pool_size": 10}],
            [{**DELAY, "duration": chance.random()}],
            [DELAY] * 3,
            [{"OP_ID": "OP_TAGS_SET", "kind": "cluster", "tags": [f"snf:eventd:heartbeat:{number}"],
              "dry_run": True}],
        ]))  # fmt: skip
    return jobs


def check_story(consumer: Consumer, ganeti: Cluster) -> None:
    """What was seen is what Ganeti did, whatever came twice or late."""
    wait_for_truth(ganeti, consumer)
    told: dict[str, tuple[Any, ...]] = {}
    ended: dict[tuple[int, int], str] = {}
    same = ("type", "operation", "jobId", "opIndex", "status", "event_time", "result")
    for event in consumer.events:
        story = (event.key, *(event.body[name] for name in same))
        assert told.setdefault(event.id, story) == story
        if event.is_final:
            job, index, _, status = event.fact
            assert ended.setdefault((job, index), status) == status


def test_nothing_is_lost_whatever_happens(
    ganeti: Cluster, broker: Broker, consumer: Consumer, daemon: Daemon
) -> None:
    seed = int(os.environ.get("SNF_SEED", "1"))
    trouble = Trouble(ganeti, broker, daemon, seed)
    jobs = make_history(JOBS, seed)
    daemon.start()

    def work() -> None:
        for start in range(0, len(jobs), 10):
            submit(ganeti.node, jobs[start : start + 10])

    worker = threading.Thread(target=work)
    worker.start()
    others = [trouble.overflow, trouble.archive, trouble.restart_broker, trouble.kill_broker,
              trouble.cut_connection]  # fmt: skip
    try:
        while worker.is_alive() or trouble.kills < KILLS or others:
            before = len(consumer.events)
            trouble.kill_daemon()
            if trouble.kills % max(1, KILLS // 6) == 0 and others:
                others.pop(trouble.random.randrange(len(others)))()
            trouble.wait_for_events(consumer, before)
    finally:
        worker.join()
    trouble.archive()
    check_story(consumer, ganeti)
    assert trouble.kills >= KILLS
    assert "internal error" not in daemon.read_log()


def test_a_clock_that_steps_back_hides_no_event(
    ganeti: Cluster, consumer: Consumer, daemon: Daemon
) -> None:
    """Two jobs on one instance; of the second, Ganeti's times are an hour earlier."""
    submit(ganeti.node, [[make_create("snf-5")]])
    daemon.start()
    wait_for_truth(ganeti, consumer)
    folder = ganeti.node.upper / QUEUE[1:]
    tag = {"kind": "instance", "name": "snf-5", "tags": ["late"]}
    submit(ganeti.node, [[{"OP_ID": "OP_TAGS_SET", **tag}]])
    wait_for_truth(ganeti, consumer)
    assert daemon.stop() == 0
    number = max(int(path.name[4:]) for path in folder.glob("job-*") if path.name[4:].isdecimal())
    path = folder / f"job-{number}"
    job = json.loads(path.read_text())
    _step_back(job, 3600)
    path.write_text(json.dumps(job))
    ganeti.node.run("sh", "-c", "rm -f /var/lib/snf-ganeti-eventd/cursor")
    seen = len(consumer.events)
    daemon.start()
    wait_for("all again", lambda: any(
        event.body["jobId"] == number for event in consumer.events[seen:]), SECONDS)  # fmt: skip
    again = {event.body["operation"]: event for event in consumer.events[seen:]
             if event.body.get("instance") == "snf-5" and event.is_final}  # fmt: skip
    times = [again[name].body["event_time"] for name in ("OP_INSTANCE_CREATE", "OP_TAGS_SET")]
    assert times == sorted(times) and times[0] != times[1]
    ganeti.remove_instance("snf-5")


def _step_back(job: dict[str, Any], seconds: int) -> None:
    for each in (job, *job["ops"]):
        for key, value in each.items():
            if key.endswith("_timestamp") and value:
                each[key] = [value[0] - seconds, value[1]]
