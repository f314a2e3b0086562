"""Those who listen: the documentation's consumer, and the progress of a deployment. Needs root."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from testbed.deadline import wait_for
from testbed.event_story import SECONDS, read_truth
from testbed.events import Daemon, open_consumer, write_settings
from testbed.false_broker import Manner, open_false_broker
from testbed.ganeti import Cluster
from testbed.namespaces import make_enter_network_argv
from testbed.rabbitmq import PASSWORD, USER, Broker
from testbed.wire import ADDRESS

DOCUMENTATION = Path(__file__).parents[3] / "docs/events.md"


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
    broker.call(lambda channel: channel.queue_delete("example-controller"))
