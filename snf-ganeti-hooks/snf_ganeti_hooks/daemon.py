"""The node's daemon: NIC scripts are answered, what a vanished tap left goes, profiles follow
tags, dnsmasq runs.

The kernel's link messages only wake it; what is there is read afresh each time, so a message
that is lost costs a few seconds and nothing else.
"""

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from snf_ganeti import notify
from snf_ganeti.errors import SnfError
from snf_ganeti_hooks import reconcile, setup, state
from snf_ganeti_hooks.addresses.dhcp_server import DhcpServers
from snf_ganeti_hooks.cluster import tags
from snf_ganeti_hooks.names.ddns_queue import Queue
from snf_ganeti_hooks.nic import Nic
from snf_ganeti_hooks.node import read_node
from snf_ganeti_hooks.request_server import RequestServer
from snf_ganeti_hooks.settings import Settings, SettingsReader
from snf_ganeti_hooks.state import NicState

_Given = ParamSpec("_Given")
_Value = TypeVar("_Value")
log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between two looks at what no message tells: tags, dnsmasq."""
FULL = 60.0
"""Seconds between two full comparisons."""
SETTLE = 0.2
"""Seconds that a change of interfaces may go on before it is looked at: a NIC that comes is
several messages, and many come together when a node starts."""
_RTMGRP_LINK = 1  # linux/rtnetlink.h
_BUFFER = 1 << 16


def serve(reader: SettingsReader) -> None:
    """Run until a signal ends it, by Terminated. An error is logged, and tried again with the
    next look. systemd hears that it is ready once all has been looked at."""
    settings = reader.read()
    # In threads of their own is what may take its time: a name server, Ganeti, a dead node that
    # gets no tags. A vanished tap may not.
    repeat("tags", tags.Master().follow)
    if settings.dns.server:
        repeat("names", Queue(settings.dns).send_due)
    with open_link_messages() as messages, DhcpServers() as dhcp, RequestServer(reader):
        compared, changed = 0.0, True
        while True:
            if changed:
                _attempt("vanished taps", take_down_gone, settings, read_all())
            if time.monotonic() - compared >= FULL or not compared:
                settings = _attempt("settings", reader.read) or settings
                _attempt("reconciling", reconcile_all, settings)
                compared, changed = time.monotonic(), True
            states = read_all()  # once for both: it is the most of what a quiet turn does
            _attempt("profiles", follow_tags, settings, states)
            _attempt("dnsmasq", dhcp.update, find_live(states), settings, look=changed)
            notify.send("READY=1", "WATCHDOG=1")
            changed = wait_for_message(messages, TICK)


def repeat(what: str, act: Callable[[], object]) -> None:
    """Do something every TICK in a thread, as long as the service runs."""

    def go_on() -> None:
        while True:
            _attempt(what, act)
            time.sleep(TICK)

    threading.Thread(target=go_on, name=what, daemon=True).start()


def open_link_messages() -> socket.socket:
    """A netlink socket that hears of every interface that comes, changes or goes."""
    messages = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    messages.bind((0, _RTMGRP_LINK))
    messages.setblocking(False)
    return messages


def wait_for_message(messages: socket.socket, seconds: float) -> bool:
    """Wait for news of interfaces; all that is there is read, and an overflow is news, too."""
    if not select.select([messages], [], [], seconds)[0]:
        return False
    time.sleep(SETTLE)
    while True:
        try:
            messages.recv(_BUFFER)
        except BlockingIOError:
            return True
        except OSError as error:
            log.debug("link messages: %s", error.strerror)


def read_all() -> Mapping[str, NicState]:
    """The states of this node's NICs, by tap."""
    return state.read_states()[0]


def find_live(states: Mapping[str, NicState]) -> list[Nic]:
    return [each.nic for each in states.values() if each.is_live]


def take_down_gone(settings: Settings, states: Mapping[str, NicState]) -> None:
    """Remove all that is left of NICs whose tap is no more, or another one by now."""
    gone = [each for each in states.values() if not each.is_live]
    if gone:
        with state.locked():
            node = read_node(settings)
            for each in gone:
                # Meanwhile a script may have set the same tap up again.
                current = state.read_state(each.nic.tap)
                if current is not None and not current.is_live:
                    setup.take_down(node, current)
                    log.info("%s of %s has gone, and its rules", each.nic.tap, each.nic.instance)


def reconcile_all(settings: Settings) -> None:
    """A healthy node is not locked: no NIC waits for the comparison."""
    if reconcile.find_differences(read_node(settings)):
        with state.locked():
            reconcile.repair(reconcile.find_differences(read_node(settings)))


def follow_tags(settings: Settings, states: Mapping[str, NicState]) -> None:
    """Put the profiles in force that the master's last word on tags names."""
    found = tags.read_file(tags.find_path())
    if found is None or not tags.find_changed(states, found):
        return
    with state.locked():
        node = read_node(settings)
        for changed in tags.find_changed(read_all(), found):
            if changed.is_live:
                choice = setup.change_profile(node, changed)
                nic = changed.nic
                text = choice.profile.name + (f" ({choice.problem})" if choice.problem else "")
                log.info("NIC %d of %s: profile %s", nic.index, nic.instance, text)


_last_errors: dict[str, str] = {}


def _attempt(
    what: str, act: Callable[_Given, _Value], *given: _Given.args, **named: _Given.kwargs
) -> _Value | None:
    """Log an error when it is another than last time: most are tried again each second."""
    try:
        value = act(*given, **named)
    except SnfError as error:
        if _last_errors.get(what) != str(error):
            log.error("%s: %s", what, error)
        _last_errors[what] = str(error)
        return None
    if _last_errors.pop(what, ""):
        log.info("%s: done now", what)
    return value
