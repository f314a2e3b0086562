"""Clients of others: Chromium opens the page, TigerVNC the same port; both see and type."""

import contextlib
import json
import os
import ssl
import struct
from pathlib import Path

import pytest

from snf_ganeti import process
from testbed.browser import PHONE, Browser, see_in_page
from testbed.console import Proxy
from testbed.console_client import open_console, receive
from testbed.deadline import wait_for
from testbed.drawing import COLOURS, GREEN, Colour
from testbed.ganeti import Cluster
from testbed.namespaces import make_enter_network_argv
from testbed.vnc_servers import NODE_ADDRESS, NODE_NAME
from vncauthproxy.protocol.vnc_auth import make_response

SECONDS = 120.0
_VIEWERS_KEY = bytes((23, 82, 107, 6, 35, 78, 88, 7))
"""With which VNC viewers hide passwords in files; everybody knows it."""


def test_chromium_sees_the_screen_and_types(
    checked: Proxy, browser: Browser, green: None, folder: Path
) -> None:
    ticket = checked.order()
    browser.open(ticket["url"])
    see_in_page(browser, GREEN)
    assert browser.evaluate("location.hash") == ""  # nobody who looks can read it
    browser.press("d")
    see_in_page(browser, COLOURS["d"])

    browser.click("#paste")
    browser.wait_until("document.querySelector('#paste-dialog').open", SECONDS)
    browser.type_text("dba")
    browser.click("#paste-dialog button[value=type]")
    see_in_page(browser, COLOURS["a"])

    browser.resize(PHONE)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for name in ("ctrl-alt-del", "paste", "keyboard", "fullscreen"):
        box = browser.evaluate(
            f"JSON.stringify(document.getElementById('{name}').getBoundingClientRect())"
        )
        shown = json.loads(box)
        assert shown["left"] >= 0 and shown["right"] <= PHONE[0] and shown["height"] >= 32
    browser.resize((1024, 768))

    checked.ask("PATCH", f"/sessions/{ticket['session']}", {"view_only": True})
    browser.wait_until("document.querySelector('#view-only')?.hidden === false", SECONDS)
    assert browser.evaluate("document.getElementById('paste').disabled")
    checked.ask("DELETE", f"/sessions/{ticket['session']}")
    browser.wait_until("document.querySelector('#notice')?.hidden === false", SECONDS)
    assert "ended" in browser.evaluate("document.querySelector('#notice').innerText")
    assert not browser.messages, "the page's policy blocked something, or a script failed"


def test_chromium_tells_a_person_why_a_link_does_not_work(checked: Proxy, browser: Browser) -> None:
    used = checked.order()
    open_console(checked, used).connection.close()
    expired = checked.order(lifetime=0.01)
    for url, text in (
        (used["url"], "used already"),
        (expired["url"], "not valid"),
        (f"{checked.url}/#nonsense", "not valid"),
        (f"{checked.url}/", "ticket"),
    ):
        browser.open(url)
        browser.wait_until("document.querySelector('#notice')?.hidden === false", SECONDS)
        assert text in browser.evaluate("document.querySelector('#notice').innerText")


def read_frame_buffer(path: Path) -> set[Colour]:
    """The colours on an X server's screen: Xvfb keeps it in a file, XWD version 7."""
    data = path.read_bytes()
    header = struct.unpack(">25I", data[:100])
    size, width, height, line, colours = (header[at] for at in (0, 4, 5, 12, 19))
    pixels = data[size + 12 * colours :]
    points = ((x, y) for x in range(4, width, 40) for y in range(4, height, 40))
    return {
        (pixels[at + 2], pixels[at + 1], pixels[at]) for at in (y * line + 4 * x for x, y in points)
    }


@pytest.mark.parametrize("kind", ["X509Plain", "X509Vnc"])
def test_tigervnc_sees_the_screen_and_types(
    cluster: Cluster, sharing: Proxy, green: None, folder: Path, kind: str
) -> None:
    """The viewer checks our certificate, and its screen is an X server's."""
    screen = folder / f"screen-{kind}"
    screen.mkdir()
    wire = cluster.bed.wire.machine.pid
    ticket = sharing.order(user=kind)
    reading, writing = os.pipe()
    argv = [*("Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24")]
    argv += ["-fbdir", str(screen), "-nolisten", "tcp"]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / f"tigervnc-{kind}.log").open("ab"))
        spawn = stack.enter_context
        x_server = make_enter_network_argv(wire, argv)
        spawn(process.spawn(x_server, stdout=log, stderr=log, pass_fds=(writing,)))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            display = f":{pipe.readline().strip()}"
        secret = {"VNC_USERNAME": "anybody", "VNC_PASSWORD": ticket["ticket"]}
        # Where there is no user, it takes the password from a file, hidden with a known key.
        hidden = make_response(_VIEWERS_KEY, ticket["ticket"][:8].encode())
        (screen / "password").write_bytes(hidden)
        home = {"HOME": str(screen), "DISPLAY": display}
        viewer = ["xtigervncviewer", f"-SecurityTypes={kind}", "-FullScreen=1"]
        viewer += [f"-PasswordFile={screen / 'password'}"] if kind == "X509Vnc" else []
        viewer += [f"-X509CA={folder / 'ca-cert.pem'}", f"{NODE_NAME}::{sharing.port}"]
        # Its network has no name service; the hosts file of this machine is another's.
        hosts = screen / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{NODE_ADDRESS} {NODE_NAME}\n")
        mounted = ["unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts; exec "$@"']
        argv = make_enter_network_argv(wire, [*mounted, "viewer", *viewer])
        spawn(process.spawn(argv, stdout=log, stderr=log, env={**secret, **home}))
        buffer = screen / "Xvfb_screen0"
        wait_for("green in TigerVNC", lambda: GREEN in read_frame_buffer(buffer), SECONDS)
        keys = make_enter_network_argv(wire, ["xdotool", "mousemove", "400", "300", "key", "d"])
        process.run(keys, env=home)
        wait_for("red in TigerVNC", lambda: COLOURS["d"] in read_frame_buffer(buffer), SECONDS)
    line = sharing.find_audit(ticket["session"])
    assert (line["kind"], line["user"]) == ("viewer", kind)


def test_viewer_reads_why_it_is_refused(sharing: Proxy) -> None:
    with contextlib.closing(sharing.connect(NODE_ADDRESS, sharing.port)) as plain:
        plain.settimeout(SECONDS)
        assert receive(plain, 12) == b"RFB 003.008\n"
        plain.sendall(b"RFB 003.008\n")
        assert receive(plain, 2) == b"\1\x13"
        plain.sendall(b"\x13")
        assert receive(plain, 2) == b"\0\2"
        plain.sendall(b"\0\2")
        assert receive(plain, 10) == b"\0\2" + struct.pack(">II", 262, 261)
        plain.sendall(struct.pack(">I", 262))
        assert receive(plain, 1) == b"\1"
        context = ssl.create_default_context(cafile=sharing.ca)
        with context.wrap_socket(plain, server_hostname=NODE_NAME) as tls:
            tls.sendall(struct.pack(">II", 1, 5) + b"u" + b"wrong")
            assert receive(tls, 4) == b"\0\0\0\1"
            (size,) = struct.unpack(">I", receive(tls, 4))
            assert b"not valid" in receive(tls, size)
