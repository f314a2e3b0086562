"""Events of real Ganeti jobs on a real RabbitMQ, from the installed package. Needs root.

What should have been seen is read from Ganeti's own job files; what was seen, by pika.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from snf_ganeti.errors import CommandError
from testbed.deadline import wait_for
from testbed.event_story import DELAY, SECONDS, make_create, submit, wait_for_truth
from testbed.events import QUEUE, Consumer, Daemon, open_tail
from testbed.ganeti import Cluster


def count_pending(daemon: Daemon, *, ok: tuple[int, ...] = (0,)) -> int:
    pending: int = json.loads(daemon.run("status", "--json", ok=ok))["pending"]
    return pending


def test_jobs_are_told_as_they_happen(ganeti: Cluster, consumer: Consumer, daemon: Daemon) -> None:
    daemon.start()
    wait_for_truth(consumer, ganeti.node)
    submit(ganeti.node, [[DELAY, DELAY]] * 3)
    wait_for_truth(consumer, ganeti.node)
    ids = [event.id for event in consumer.events]
    assert len(ids) == len(set(ids))

    assert daemon.stop() == 0
    submit(ganeti.node, [[DELAY]])
    assert count_pending(daemon, ok=(1,)) == 1
    daemon.start()
    wait_for_truth(consumer, ganeti.node)
    # The consumer may be told before the daemon is that the broker has it.
    wait_for("the cursor", lambda: count_pending(daemon) == 0, SECONDS)
    figures = daemon.read_metrics()
    assert (figures["confirmed_total"], figures["master"]) == (1, 1)
    assert "FAILED" not in daemon.run("check")
    assert "error" not in daemon.read_log()


def test_an_instance_is_told_with_its_nics_and_disks(
    ganeti: Cluster, consumer: Consumer, daemon: Daemon, tmp_path: Path
) -> None:
    """What `gnt-instance` says of it later is what the event said; `tail` shows the same."""
    daemon.start()
    wait_for_truth(consumer, ganeti.node)
    shown = tmp_path / "tail"
    with open_tail(ganeti.node, shown):
        create = make_create(
            "snf-42", disk_template="file", disks=[{"size": 16, "name": "snf-vol-1"}],
            nics=[{"ip": "10.78.0.77", "network": "testnet", "name": "snf-nic-1"}],
        )  # fmt: skip
        submit(ganeti.node, [[create]])
        wait_for_truth(consumer, ganeti.node)
        tag = {"OP_ID": "OP_TAGS_SET", "kind": "instance", "name": "snf-42",
               "tags": ["synnefo:network:snf-nic-1:limited"]}  # fmt: skip
        change = {"OP_ID": "OP_INSTANCE_SET_PARAMS", "instance_name": "snf-42",
                  "beparams": {"maxmem": 96}}  # fmt: skip
        submit(ganeti.node, [[tag, change]])
        wait_for("tail", lambda: "instance set params snf-42" in shown.read_text(), SECONDS)
    wait_for_truth(consumer, ganeti.node)
    listed = json.loads(ganeti.node.read("/var/lib/ganeti/config.data"))
    (nic,) = next(each["nics"] for each in listed["instances"].values() if each["name"] == "snf-42")
    (made,) = consumer.find(operation="OP_INSTANCE_CREATE", instance="snf-42", status="success")
    expected = {"name": "snf-nic-1", "network": "testnet", "ip": "10.78.0.77", "mac": nic["mac"],
                "mode": "bridged", "link": "br0", "uuid": nic["uuid"]}  # fmt: skip
    assert made.key == "ganeti.snf.event.op"
    assert made.body["instance_nics"] == [expected]
    (disk,) = made.body["instance_disks"]
    assert (disk["name"], disk["size"]) == ("snf-vol-1", 16)
    (changed,) = consumer.find(
        operation="OP_INSTANCE_SET_PARAMS", instance="snf-42", status="success"
    )
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
        wait_for_truth(consumer, ganeti.node)
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
    wait_for_truth(consumer, ganeti.node)
    busy = delay(600, "running")
    waiting = delay(1, "waiting")
    ganeti.run("gnt-job", "cancel", str(waiting))
    wait_for("its end", lambda: consumer.find(jobId=waiting, status="canceled"), SECONDS)
    ganeti.run("gnt-job", "cancel", "--kill", "--yes-do-it", str(busy))
    wait_for_truth(consumer, ganeti.node)


def test_a_clock_that_steps_back_hides_no_event(
    ganeti: Cluster, consumer: Consumer, daemon: Daemon
) -> None:
    """Two jobs on one instance; of the second, Ganeti's times are an hour earlier."""
    submit(ganeti.node, [[make_create("snf-5")]])
    daemon.start()
    wait_for_truth(consumer, ganeti.node)
    folder = ganeti.node.upper / QUEUE[1:]
    tag = {"kind": "instance", "name": "snf-5", "tags": ["late"]}
    submit(ganeti.node, [[{"OP_ID": "OP_TAGS_SET", **tag}]])
    wait_for_truth(consumer, ganeti.node)
    assert daemon.stop() == 0
    number = max(int(path.name[4:]) for path in folder.glob("job-*") if path.name[4:].isdecimal())
    path = folder / f"job-{number}"
    job = json.loads(path.read_text())
    _step_back(job, 3600)
    path.write_text(json.dumps(job))
    ganeti.node.run("sh", "-c", "rm -f /var/lib/snf-ganeti-eventd/cursor")
    seen = len(consumer.events)
    daemon.start()

    def find_times(name: str) -> list[list[int]]:
        """When an operation on the instance ended, as told now."""
        finals = (event.body for event in consumer.events[seen:] if event.is_final)
        return [body["event_time"] for body in finals
                if (body.get("instance"), body["operation"]) == ("snf-5", name)]  # fmt: skip

    (first,) = wait_for("the first again", lambda: find_times("OP_INSTANCE_CREATE"), SECONDS)
    (second,) = wait_for("the second again", lambda: find_times("OP_TAGS_SET"), SECONDS)
    assert first < second
    ganeti.remove_instance("snf-5")


def _step_back(job: dict[str, Any], seconds: int) -> None:
    for each in (job, *job["ops"]):
        for key, value in each.items():
            if key.endswith("_timestamp") and value:
                each[key] = [value[0] - seconds, value[1]]
