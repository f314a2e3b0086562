"""snf-ganeti-eventd on a node of the bed, run as its unit runs it, and what a consumer sees.

The consumer is pika, a library that the daemon does not use.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika

from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.descendants import find_children
from testbed.machine import Machine
from testbed.namespaces import call_in_network
from testbed.rabbitmq import PASSWORD, USER, Broker

logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs whole conversations

COMMAND = "/usr/sbin/snf-ganeti-eventd"
STATE = "/var/lib/snf-ganeti-eventd"
QUEUE = "/var/lib/ganeti/queue"
FINAL = frozenset({"success", "error", "canceled"})
_SECONDS = 60.0

_SETTINGS = "/etc/snf-ganeti-eventd/conf.d/bed.toml"
_PASSWORD_FILE = "/etc/snf-ganeti-eventd/amqp-password"
QUICK = "connect_timeout = 3\nconfirm_timeout = 3\n"
"""Lines of `[amqp]` for tests that wait for an end of patience."""
CA_FILE = "/etc/snf-ganeti-eventd/ca.pem"
_EXCHANGE = "ganeti"
_OWNER = ("--owner=snf-ganeti-eventd", "--group=snf-ganeti-eventd")
AS_DAEMON = (
    *("setpriv", "--reuid=snf-ganeti-eventd", "--regid=snf-ganeti-eventd"),
    *("--groups=gnt-daemons", "--no-new-privs"),
    *(f"--{kind}=-all,+dac_read_search" for kind in ("inh-caps", "ambient-caps", "bounding-set")),
)
"""What the unit's User=, SupplementaryGroups= and capabilities do."""


class Daemon:
    """The daemon on one node, which may be off; what it logs goes to a file out here."""

    def __init__(self, node: Machine, log: Path) -> None:
        self.node = node
        self.log = log
        self._stack = contextlib.ExitStack()
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        spawned = self.node.spawn(*AS_DAEMON, COMMAND, *options, "run", output=self.log)
        self._child = self._stack.enter_context(spawned)

    def kill(self) -> None:
        """SIGKILL, whatever it is at. When this returns it is gone, and what it had locked free."""
        if self._child is not None:
            group = self._child.pid
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.killpg(group, signal.SIGKILL)
            self._stack.close()
            self._child = None
            # Its nsenter may end before it: a write to a slow disk is not cut short.
            wait_for("the death of the daemon", lambda: not _is_group(group), _SECONDS)

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM; gives the exit status."""
        assert self._child is not None
        os.kill(self.pid, signal.SIGTERM)
        status = self._child.wait(timeout)
        self._stack.close()
        self._child = None
        return status

    @property
    def pid(self) -> int:
        """As seen out here: the only child of the nsenter that runs it."""
        assert self._child is not None
        pid = self._child.pid
        return wait_for("the daemon", lambda: next(find_children(pid), 0), 10)

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def read_log(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def run(self, *arguments: str, ok: Sequence[int] = (0,)) -> str:
        """A command of the program, as root; gives what it printed."""
        return self.node.run(COMMAND, *arguments, ok=ok, timeout=120).text

    def read_metrics(self) -> dict[str, float]:
        """The daemon's figures, as soon as it has some, without their prefix."""
        text = wait_for(
            "the figures",
            lambda: call_in_network(self.node.pid, _read_metrics),
            _SECONDS,
            explain=self.read_log,
        )
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name.removeprefix("snf_ganeti_eventd_"): float(value) for name, value in lines}


@contextlib.contextmanager
def open_tail(node: Machine, output: Path, *options: str) -> Iterator[Path]:
    """Events as lines for people at the end of `output`, as they come, for the block."""
    output.touch()
    with node.spawn(COMMAND, "tail", *options, output=output):
        wait_for("tail", lambda: "following the jobs" in output.read_text(), 60)
        yield output


def _is_group(group: int) -> bool:
    """Is any process in it?"""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _read_metrics() -> str:
    """Nothing while nobody listens."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:9477/metrics", timeout=_SECONDS) as answer:
            text: bytes = answer.read()
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return ""
        raise
    return text.decode()


@contextlib.contextmanager
def open_daemon(node: Machine, log: Path) -> Iterator[Daemon]:
    """A daemon, not yet started, that has no cursor. At the end of the block it is killed, and
    the node has the shipped settings again."""
    node.run("sh", "-c", f"rm -f {STATE}/*")
    daemon = Daemon(node, log)
    try:
        yield daemon
    finally:
        daemon.kill()
        remove_settings(node)


def write_settings(node: Machine, hosts: Sequence[str], *, first: str = "", amqp: str = "") -> None:
    """Settings of a node for brokers at these addresses; first: further lines of TOML without a
    table, amqp: of its table."""
    write_password(node, PASSWORD)
    node.write(
        _SETTINGS,
        f'transport = "amqp"\n{first}\n[amqp]\nhosts = {json.dumps(list(hosts))}\n'
        f'username = "{USER}"\npassword_file = "{_PASSWORD_FILE}"\n{amqp}\n',
    )


def remove_settings(node: Machine) -> None:
    """The shipped settings, and no others."""
    node.run("rm", "--force", _SETTINGS, _PASSWORD_FILE, CA_FILE)


def write_password(node: Machine, password: str) -> None:
    argv = ("install", "--mode=400", *_OWNER, "/dev/stdin", _PASSWORD_FILE)
    node.run(*argv, stdin=password.encode() + b"\n")


@dataclass(frozen=True)
class Event:
    """A message as a consumer got it. at: when, in seconds since the epoch."""

    id: str
    key: str
    body: dict[str, Any]
    at: float

    @property
    def is_final(self) -> bool:
        return self.body.get("status") in FINAL

    @property
    def fact(self) -> tuple[int, int, str, str]:
        """Job, operation, opcode, status."""
        body = self.body
        return body["jobId"], body["opIndex"], body["operation"], body["status"]


class Consumer:
    """Collects all messages of the exchange, from whichever broker answers, in a thread."""

    def __init__(self, bed: Bed, brokers: Sequence[Broker], keys: Sequence[str] = ("#",)) -> None:
        self.events: list[Event] = []
        self._pid = bed.wire.machine.pid
        self._hosts = [broker.address for broker in brokers]
        self._keys = keys
        self._end = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=call_in_network, args=(self._pid, self._run))

    def start(self) -> None:
        """Returns once the queue is bound."""
        self._thread.start()
        wait_for("the consumer", self._ready.is_set, 60)

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    @property
    def finals(self) -> set[tuple[int, int, str, str]]:
        return {event.fact for event in list(self.events) if event.is_final}

    def find(self, **fields: Any) -> list[Event]:
        """The events whose bodies have these fields."""
        return [event for event in list(self.events) if fields.items() <= event.body.items()]

    def _run(self) -> None:
        while not self._end.is_set():
            for host in self._hosts:
                with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                    self._follow(host)
            self._end.wait(0.2)

    def _follow(self, host: str) -> None:
        credentials = pika.PlainCredentials(USER, PASSWORD)
        parameters = pika.ConnectionParameters(
            host, credentials=credentials, heartbeat=10, blocked_connection_timeout=20
        )
        with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=200)
            channel.exchange_declare(_EXCHANGE, "topic", durable=True)
            channel.queue_declare("test", durable=True, arguments={"x-queue-type": "quorum"})
            for key in self._keys:
                channel.queue_bind("test", _EXCHANGE, key)
            self._ready.set()
            for method, properties, body in channel.consume("test", inactivity_timeout=0.2):
                if method is not None:
                    at, key = time.time(), method.routing_key
                    self.events.append(Event(properties.message_id, key, json.loads(body), at))
                    channel.basic_ack(method.delivery_tag)
                if self._end.is_set():
                    return


@contextlib.contextmanager
def open_consumer(
    bed: Bed, brokers: Sequence[Broker], keys: Sequence[str] = ("#",)
) -> Iterator[Consumer]:
    """A consumer that is bound; it ends with the block."""
    consumer = Consumer(bed, brokers, keys)
    try:
        consumer.start()
        yield consumer
    finally:
        consumer.stop()
