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
from testbed.ganeti import Cluster, add_node, write_blank_os

SECONDS = 120.0


OS = "blank-console"
FLOPPY = "/srv/drawing-floppy.img"
FLOPPY_SIZE = 1_474_560


@pytest.fixture
def instance(cluster: Cluster) -> Iterator[str]:
    """An instance of Ganeti that runs the guest that draws."""
    name, node = "drawing", cluster.node
    write_blank_os(node, OS)
    cluster.add_instance(
        name,
        *(f"--os-type={OS}", "--disk-template=file", "--disk=0:size=16M", "--no-nics"),
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


@pytest.fixture
def wanderer(cluster: Cluster) -> Iterator[str]:
    """A running instance that can move between two nodes: it has no disk, and a floppy."""
    name, second = "wanderer", add_node(cluster, 2)
    for node in (cluster.node, second):
        write_blank_os(node, OS)
        node.write(FLOPPY, BOOT_SECTOR.ljust(FLOPPY_SIZE, b"\0"))
    floppy = f"kvm:boot_order=floppy,floppy_image_path={FLOPPY}"
    cluster.add_instance(
        name,
        *(f"--os-type={OS}", "--disk-template=diskless", "--no-nics"),
        f"--hypervisor-parameters={floppy}",
    )
    yield name
    cluster.remove_instance(name)
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

    first, second = cluster.node.hostname, cluster.bed.node(2).hostname
    list_node = ("gnt-instance", "list", "--no-headers", "--output=pnode", wanderer)
    assert cluster.run(*list_node).strip() == first
    cluster.run("gnt-instance", "migrate", "--force", f"--target-node={second}", wanderer)
    assert cluster.run(*list_node).strip() == second
    assert checked.find_audit(ticket["session"])["end"] == "the instance closed its console"
    browser.wait_until("document.body.dataset.state === 'connected'", SECONDS)
    see_in_page(browser, COLOURS["d"])
    browser.press("b")
    see_in_page(browser, GREEN)
    assert ticket["session"] in checked.find_sessions()


def test_instance_that_does_not_run_is_told(cluster: Cluster, checked: Proxy) -> None:
    client = WebSocketClient(checked.open_tls(), checked.order(instance="nowhere")["ticket"])
    code, said = client.wait_for_close()
    assert code == 4002 and "no instance nowhere" in said
