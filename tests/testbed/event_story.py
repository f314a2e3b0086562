"""Jobs for Ganeti, and whether they were told as they happened: by Ganeti's own files."""

import json
import re
from collections.abc import Sequence
from typing import Any

from testbed.deadline import wait_for
from testbed.events import FINAL, QUEUE, Consumer, Daemon
from testbed.machine import Machine

SECONDS = 180.0
DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0, "on_master": True}
"""An opcode that does nothing."""
QUEUE_SCRIPT = """\
set -e
cd /var/lib/ganeti
hostname >ssconf_master_node
echo cluster.test >ssconf_cluster_name
install --directory --owner=gnt-masterd --group=gnt-daemons --mode=750 queue queue/archive
cat >queue/new <<END
{"id": 1, "received_timestamp": [1700000000, 0], "ops": [{"input": {"OP_ID": "OP_TEST_DELAY"},
 "status": "success", "result": null, "log": [], "start_timestamp": [1700000001, 0],
 "exec_timestamp": [1700000002, 0], "end_timestamp": [1700000003, 0]}]}
END
chown gnt-masterd queue/new
chmod 600 queue/new
mv queue/new queue/job-1
"""
"""Makes a node the master of a cluster that is only a queue, with one job that is done and that
nobody but its owner may read, as those that luxid writes."""


def make_create(name: str, **more: Any) -> dict[str, Any]:
    """An opcode that makes a diskless instance, off."""
    return {
        "OP_ID": "OP_INSTANCE_CREATE", "instance_name": name, "mode": "create",
        "disk_template": "diskless", "disks": [], "nics": [], "os_type": "events",
        "pnode": "node1.bed.test", "start": False, "name_check": False, "ip_check": False,
        "hypervisor": "kvm", "hvparams": {}, "beparams": {}, "osparams": {}, **more,
    }  # fmt: skip


def read_truth(node: Machine) -> set[tuple[int, int, str, str]]:
    """Job, operation, opcode and status of all that has ended, from Ganeti's own files."""
    folder = node.upper / QUEUE.lstrip("/")
    paths = [*folder.glob("job-*"), *folder.glob("archive/*/job-*")]
    jobs = [json.loads(path.read_bytes()) for path in paths if path.name[4:].isdecimal()]
    return {
        (int(job["id"]), index, op["input"]["OP_ID"], op["status"])
        for job in jobs
        for index, op in enumerate(job["ops"])
        if op["status"] in FINAL
    }


def submit(node: Machine, jobs: Sequence[Sequence[dict[str, Any]]], timeout: float = 600) -> None:
    """Have Ganeti run jobs, given as lists of opcodes, and wait for all; some may fail."""
    names = [f"/run/job-{index}.json" for index in range(len(jobs))]
    for name, ops in zip(names, jobs, strict=True):
        node.write(name, json.dumps(list(ops)))
    node.run("gnt-debug", "submit-job", *names, ok=(0, 1), timeout=timeout)


def wait_for_truth(consumer: Consumer, node: Machine) -> None:
    """Until the consumer has seen the final state of all that ended, and nothing else."""

    def explain() -> str:
        return f"missing: {sorted(read_truth(node) - consumer.finals)[:9]}"

    wait_for("every final state", lambda: consumer.finals >= read_truth(node), SECONDS,
             interval=0.2, explain=explain)  # fmt: skip
    assert consumer.finals == read_truth(node)


def wait_for_log(daemon: Daemon, pattern: str) -> None:
    wait_for(pattern, lambda: re.search(pattern, daemon.read_log()), SECONDS,
             explain=daemon.read_log)  # fmt: skip


def wait_for_retries(daemon: Daemon, metric: str, count: int = 2) -> None:
    """Until the daemon has tried again some times."""
    before = daemon.read_metrics().get(metric, 0)
    wait_for(metric, lambda: daemon.read_metrics().get(metric, 0) >= before + count, SECONDS)
