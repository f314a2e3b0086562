"""Whatever happens to the daemon and its broker, no event is lost. Needs root.

With SNF_SOAK=1 (`make soak`) the history is 300 jobs and 50 kills, and all other trouble comes
three times; SNF_SEED chooses another.
"""

import contextlib
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

from snf_ganeti.errors import DeadlineError
from testbed.deadline import wait_for
from testbed.event_story import (
    DELAY,
    make_create,
    submit,
    wait_for_truth,
)
from testbed.events import (
    QUEUE,
    Consumer,
    Daemon,
)
from testbed.ganeti import Cluster
from testbed.rabbitmq import Broker

IS_SOAK = os.environ.get("SNF_SOAK", "") not in ("", "0")
JOBS, KILLS, ROUNDS = (300, 50, 3) if IS_SOAK else (60, 10, 1)


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
    wait_for_truth(consumer, ganeti.node)
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
              trouble.cut_connection] * ROUNDS  # fmt: skip
    try:
        while worker.is_alive() or trouble.kills < KILLS or others:
            before = len(consumer.events)
            trouble.kill_daemon()
            if trouble.kills % max(1, KILLS // (6 * ROUNDS)) == 0 and others:
                others.pop(trouble.random.randrange(len(others)))()
            trouble.wait_for_events(consumer, before)
    finally:
        worker.join()
    trouble.archive()
    check_story(consumer, ganeti)
    assert trouble.kills >= KILLS
    total, distinct = len(consumer.events), len({event.id for event in consumer.events})
    print(f"seed {seed}: {len(jobs)} jobs, {trouble.kills} kills, {total - distinct} of {total} "
          "messages came again")  # fmt: skip
    assert "internal error" not in daemon.read_log()
