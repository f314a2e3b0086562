"""What the benchmarks of events share: a node with the installed daemon, a broker, and a queue
that is written as Ganeti writes it, without Ganeti."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.bed import Bed, open_bed
from testbed.events import Daemon, open_daemon, write_settings
from testbed.machine import Machine
from testbed.rabbitmq import Broker, open_brokers
from testbed.roots import BUILD

GANETI = "/var/lib/ganeti"

WRITER = """
import json, os, sys, time
folder, first, count, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
def stamp(): now = time.time(); return [int(now), int(now % 1 * 1e6)]
begin = time.monotonic()
for number in range(first, first + count):
    if rate:
        time.sleep(max(0.0, begin + (number - first) / rate - time.monotonic()))
    op = {"OP_ID": "OP_INSTANCE_SHUTDOWN", "instance_name": f"snf-{number}", "timeout": 120,
          "reason": [["gnt:client:gnt-instance", "stop", 1]], "debug_level": 0, "priority": 0}
    log = [[1, stamp(), "message", "a message of some length, as Ganeti writes them"]]
    job = {"id": number, "ops": [{"input": op, "status": "success", "result": None, "log": log,
           "start_timestamp": stamp(), "exec_timestamp": stamp(), "end_timestamp": stamp(),
           "priority": 0}], "start_timestamp": stamp(), "end_timestamp": stamp(),
           "received_timestamp": stamp(), "livelock": None, "process_id": 1}
    draft = os.path.join(folder, f"job-{number}x.new")
    with open(draft, "w") as file:
        json.dump(job, file)
    print(number, time.time())
    os.rename(draft, os.path.join(folder, f"job-{number}"))
"""
"""Writes jobs FIRST… into a folder, RATE a second (0: at once), and says when it did."""


@dataclass(frozen=True)
class Site:
    bed: Bed
    node: Machine
    brokers: Sequence[Broker]
    daemon: Daemon

    def write_jobs(
        self, first: int, count: int, rate: float = 0, folder: str = ""
    ) -> dict[int, float]:
        """Job → when its file came to its name, in seconds since the epoch."""
        folder = folder or f"{GANETI}/queue"
        self.node.run("mkdir", "--parents", folder)
        numbers = (str(first), str(count), str(rate))
        done = self.node.run("python3", "-c", WRITER, folder, *numbers, timeout=600).text
        pairs = (line.split() for line in done.splitlines())
        return {int(number): float(at) for number, at in pairs}

    def run_python(self, script: str, *arguments: str) -> float:
        """Run a script in the node as the daemon's user; gives the number that it prints."""
        argv = ("python3", "-c", script, *arguments)
        return float(self.node.run(*argv, timeout=900).text.split()[-1])

    def read_rss(self) -> float:
        """Resident memory of the daemon, in MB."""
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / 1e6

    def read_cpu(self) -> float:
        """Seconds of CPU that the daemon has used."""
        words = Path(f"/proc/{self.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def open_site(name: str, *, brokers: int = 1) -> Iterator[Site]:
    """A node that takes itself for a master, and brokers; the daemon is not started."""
    debs = sorted((BUILD / "deb").glob("*.deb"))
    with contextlib.ExitStack() as stack:
        bed = stack.enter_context(open_bed(f"bench-{name}-{os.getpid()}", debs=debs))
        node = bed.power_on_node(1)
        node.run("mkdir", "--parents", f"{GANETI}/queue/archive")
        node.write(f"{GANETI}/ssconf_cluster_name", "cluster.bed.test\n")
        node.write(f"{GANETI}/ssconf_master_node", node.hostname + "\n")
        opened = stack.enter_context(open_brokers(bed, brokers)) if brokers else ()
        write_settings(node, [broker.address for broker in opened])
        daemon = stack.enter_context(open_daemon(node, bed.folder / "daemon.log"))
        yield Site(bed, node, opened, daemon)


def bind_queue(site: Site) -> None:
    """A durable quorum queue that takes every event, and that nobody reads."""

    def bind(channel: Any) -> None:
        channel.exchange_declare("ganeti", "topic", durable=True)
        channel.queue_declare("bench", durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind("bench", "ganeti", "#")

    site.brokers[0].call(bind)
