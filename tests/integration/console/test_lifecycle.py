"""A proxy's life: certificates change under open sessions, and it ends without dropping them."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.console import Proxy, running_proxy
from testbed.console_client import WebSocketClient, open_console
from testbed.deadline import wait_for
from testbed.drawing import GREEN
from testbed.ganeti import Cluster
from testbed.machine import Machine
from testbed.vnc_servers import PKI

SECONDS = 120.0
SETTINGS = """
[targets]
networks = ["127.0.0.0/8"]
[limits]
drain = 3.0
"""


@pytest.fixture
def proxy(cluster: Cluster, node: Machine, green: None, folder: Path) -> Iterator[Proxy]:
    """One of its own, which ends with the test."""
    connect = cluster.bed.wire.connect
    with running_proxy(node, connect, folder, "mortal", 8445, SETTINGS) as running:
        yield running


def read_subject(proxy: Proxy) -> str:
    """Of the certificate that it shows now."""
    with proxy.open_tls() as tls:
        certificate = tls.getpeercert()
    assert certificate
    return str(certificate["subject"])


def test_certificate_is_reloaded_under_an_open_session(proxy: Proxy, node: Machine) -> None:
    client = open_console(proxy, proxy.order())
    before = read_subject(proxy)
    assert "renewed" not in before
    for file in ("cert", "key"):
        node.run("cp", f"{PKI}/renewed-{file}.pem", f"{proxy.etc}/{file}.pem")
    os.kill(proxy.pid, signal.SIGHUP)
    wait_for("the new certificate", lambda: "renewed" in read_subject(proxy), SECONDS)
    assert client.read_colour() == GREEN

    node.write(f"{proxy.etc}/cert.pem", "no certificate")
    os.kill(proxy.pid, signal.SIGHUP)
    wait_for("its refusal", lambda: "nothing was reloaded" in proxy.log.read_text(), SECONDS)
    assert "renewed" in read_subject(proxy)
    assert client.read_colour() == GREEN


def test_sessions_have_a_time_to_end(proxy: Proxy) -> None:
    client = open_console(proxy, proxy.order())
    waiting = proxy.order()
    started = time.monotonic()
    os.kill(proxy.pid, signal.SIGTERM)

    def is_closed() -> bool:
        with contextlib.suppress(OSError):
            proxy.open_tls().close()
            return False
        return True

    wait_for("the closed port", is_closed, SECONDS)
    assert client.read_colour() == GREEN
    assert isinstance(client.connection, WebSocketClient)
    assert client.connection.wait_for_close() == (1012, "the proxy shuts down")
    assert time.monotonic() - started >= 3.0
    assert proxy.child.wait(SECONDS) == 0
    assert proxy.log.read_text().count(waiting["session"]) == 0
