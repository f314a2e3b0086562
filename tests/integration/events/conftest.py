"""A Ganeti cluster with an OS that does nothing, and a broker on its wire that speaks TLS, too."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.events import Consumer, Daemon, open_consumer, open_daemon, write_settings
from testbed.ganeti import Cluster
from testbed.rabbitmq import Broker, open_brokers

TLS = """\
listeners.ssl.default = {address}:5671
ssl_options.cacertfile = /etc/rabbitmq/ca.pem
ssl_options.certfile = /etc/rabbitmq/broker.pem
ssl_options.keyfile = /etc/rabbitmq/broker.key
"""
BLANK_OS = {
    "ganeti_api_version": "20\n",
    "parameters.list": "img_key a key\nimg_passwd a password\nimg_token a token\n",
    "variants.list": "",
    **dict.fromkeys(("create", "import", "export", "rename", "verify"), "#!/bin/sh\nexit 0\n"),
}


@pytest.fixture(scope="session")
def ganeti(cluster: Cluster) -> Cluster:
    """The cluster, with an OS definition that does nothing."""
    for name, content in BLANK_OS.items():
        cluster.node.write(f"/usr/share/ganeti/os/events/{name}", content, mode=0o755)
    return cluster


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A certificate that is its own authority, for the first broker's address."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=broker1", "-addext", "subjectAltName=IP:10.78.0.61"),
            *("-keyout", folder / "key", "-out", folder / "certificate"),
        ],
        check=True,
        capture_output=True,
    )
    certificate = (folder / "certificate").read_bytes()
    return {"ca.pem": certificate, "broker.pem": certificate,
            "broker.key": (folder / "key").read_bytes()}  # fmt: skip


@pytest.fixture(scope="session")
def running_broker(ganeti: Cluster, certificates: dict[str, bytes]) -> Iterator[Broker]:
    files = {f"/etc/rabbitmq/{name}": content for name, content in certificates.items()}
    more = TLS.format(address="10.78.0.61")
    with open_brokers(ganeti.bed, more=more, files=files) as (only,):
        yield only


@pytest.fixture
def broker(running_broker: Broker) -> Iterator[Broker]:
    """It has no queue that takes events, and none of the test's stays."""
    yield running_broker
    running_broker.call(lambda channel: channel.queue_delete("test"))


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
