"""Consoles of Ganeti's instances, by name."""

import json
from collections.abc import Iterator

import pytest

from testbed.browser import Browser, see_in_page
from testbed.console import (
    PKI,
    Proxy,
    WebSocketClient,
)
from testbed.drawing import BOOT_SECTOR, COLOURS, GREEN
from testbed.ganeti import Cluster

SECONDS = 120.0


BLANK_OS = {
    "ganeti_api_version": "20\n",
    "parameters.list": "",
    **dict.fromkeys(("create", "import", "export", "rename", "verify"), "#!/bin/sh\nexit 0\n"),
}


@pytest.fixture
def instance(cluster: Cluster) -> Iterator[str]:
    """An instance of Ganeti that runs the guest that draws."""
    name, node = "drawing", cluster.node
    for file, content in BLANK_OS.items():
        node.write(f"/usr/share/ganeti/os/blank-console/{file}", content, mode=0o755)
    cluster.add_instance(
        name,
        *("--os-type=blank-console", "--disk-template=file", "--disk=0:size=16M", "--no-nics"),
        "--no-start",
    )
    listed = json.loads(node.run("cat", "/var/lib/ganeti/config.data").text)
    (path,) = (disk["logical_id"][1] for disk in listed["disks"].values() if name in str(disk))
    node.run("dd", f"of={path}", "conv=notrunc", stdin=BOOT_SECTOR)
    cluster.run("gnt-instance", "start", name)
    yield name
    cluster.remove_instance(name)


def test_console_of_an_instance_by_name_goes_on_after_its_restart(
    cluster: Cluster, checked: Proxy, browser: Browser, instance: str
) -> None:
    """The page goes on by itself, with a ticket that it got over the session."""
    browser.open(checked.order(instance=instance, lifetime=600)["url"])
    see_in_page(browser, GREEN)
    assert browser.evaluate("document.querySelector('#instance').innerText") == instance
    browser.press("d")
    see_in_page(browser, COLOURS["d"])

    cluster.run("gnt-instance", "shutdown", "--timeout=0", instance)
    browser.wait_until("document.body.dataset.state !== 'connected'", SECONDS)
    cluster.run("gnt-instance", "start", instance)
    browser.wait_until("document.body.dataset.state === 'connected'", SECONDS)
    see_in_page(browser, GREEN)

    node = cluster.node
    node.write("/srv/client-token", checked.token)
    argv = ("vncauthproxy-client", "open", instance, "--proxy", checked.url)
    files = ("--ca", f"{PKI}/ca-cert.pem", "--token-file", "/srv/client-token")
    browser.open(node.run(*argv, *files).text.strip())
    see_in_page(browser, GREEN)


def test_instance_that_does_not_run_is_told(cluster: Cluster, checked: Proxy) -> None:
    client = WebSocketClient(checked.open_tls(), checked.order(instance="nowhere")["ticket"])
    code, said = client.wait_for_close()
    assert code == 4002 and "no instance nowhere" in said
