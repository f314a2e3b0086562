"""Consoles of Ganeti's instances, by name."""

from collections.abc import Iterator

import pytest

from testbed.browser import Browser, see_in_page
from testbed.console import Proxy
from testbed.console_client import WebSocketClient
from testbed.deadline import wait_for
from testbed.drawing import BOOT_SECTOR, COLOURS, GREEN
from testbed.ganeti import Cluster, add_node, find_disk, write_blank_os
from testbed.machine import Machine
from testbed.vnc_servers import PKI

SECONDS = 120.0


OS = "blank-console"
DISK_SIZE = 16 << 20


def add_instance(cluster: Cluster, name: str, template: str, others: tuple[Machine, ...]) -> None:
    """An instance of Ganeti that runs the guest that draws; others: nodes that have its disk,
    which nobody writes to, at the same place."""
    write_blank_os(cluster.node, OS)
    options = (f"--os-type={OS}", f"--disk-template={template}", "--disk=0:size=16M", "--no-nics")
    cluster.add_instance(name, *options, "--no-start")
    path = "/" + str(find_disk(cluster, name).relative_to(cluster.node.upper))
    cluster.node.run("dd", f"of={path}", "conv=notrunc", stdin=BOOT_SECTOR)
    for node in others:
        write_blank_os(node, OS)
        node.write(path, BOOT_SECTOR.ljust(DISK_SIZE, b"\0"))
    cluster.run("gnt-instance", "start", name)


@pytest.fixture
def instance(cluster: Cluster) -> Iterator[str]:
    add_instance(cluster, "drawing", "file", ())
    yield "drawing"
    cluster.remove_instance("drawing")


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


@pytest.fixture
def wanderer(cluster: Cluster) -> Iterator[str]:
    """A running instance that can move between two nodes."""
    second = add_node(cluster, 2)
    add_instance(cluster, "wanderer", "sharedfile", (second,))
    yield "wanderer"
    cluster.remove_instance("wanderer")
    cluster.run("gnt-node", "remove", second.hostname)
    second.power_off()


def test_page_follows_an_instance_to_another_node(
    cluster: Cluster, checked: Proxy, browser: Browser, wanderer: str
) -> None:
    """It migrates, running, with what it shows; the page connects again by itself."""
    ticket = checked.order(instance=wanderer, lifetime=600)
    browser.open(ticket["url"])
    see_in_page(browser, GREEN)
    browser.press("d")
    see_in_page(browser, COLOURS["d"])
    started = checked.find_sessions()[ticket["session"]]["started"]

    first, second = cluster.node.hostname, cluster.bed.node(2).hostname
    list_node = ("gnt-instance", "list", "--no-headers", "--output=pnode", wanderer)
    assert cluster.run(*list_node).strip() == first
    cluster.run("gnt-instance", "migrate", "--force", f"--target-node={second}", wanderer)
    assert cluster.run(*list_node).strip() == second
    assert checked.find_audit(ticket["session"])["end"] == "the instance closed its console"

    def goes_on() -> bool:
        found = checked.find_sessions().get(ticket["session"])
        return found is not None and found["started"] != started

    wait_for("the session again", goes_on, SECONDS)
    browser.wait_until("document.body.dataset.state === 'connected'", SECONDS)
    see_in_page(browser, COLOURS["d"])
    browser.press("b")
    see_in_page(browser, GREEN)


def test_instance_that_does_not_run_is_told(cluster: Cluster, checked: Proxy) -> None:
    client = WebSocketClient(checked.open_tls(), checked.order(instance="nowhere")["ticket"])
    code, said = client.wait_for_close()
    assert code == 4002 and "no instance nowhere" in said
