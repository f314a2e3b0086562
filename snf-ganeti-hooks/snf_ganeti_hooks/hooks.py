"""Ganeti's hooks after an instance was added, started, modified, renamed or removed: its name.

Only the master's hook does anything, and only writes to the queue. See ganeti-hooks in Ganeti's
documentation; the variables are those of BuildInstanceHookEnv in its source.
"""

import ipaddress
import logging
import os
import re
import socket
from collections.abc import Mapping
from ipaddress import IPv6Network

from snf_ganeti import log as logs
from snf_ganeti_hooks import ddns_queue, settings
from snf_ganeti_hooks.ddns import Names
from snf_ganeti_hooks.nic import make_eui64

log = logging.getLogger(__name__)

TAG = "dns"
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_MAX_NICS = 64


def run_hook() -> int:
    """Queue what a job changes of an instance's names. Raises SettingsError."""
    logs.configure("snf-ganeti-hooks")
    environ = os.environ
    if environ.get("GANETI_MASTER") == socket.getfqdn() and settings.read().dns.server:
        ddns_queue.put(parse_names(environ))
    return 0


def parse_names(environ: Mapping[str, str]) -> Names:
    """What DNS shall say after a job. What can't be read of a NIC is left out, and logged."""
    before = environ.get("GANETI_INSTANCE_NAME", "")
    after = environ.get("GANETI_POST_INSTANCE_NAME", before)
    after = environ.get("GANETI_INSTANCE_NEW_NAME", after)
    if environ.get("GANETI_OP_CODE") == "OP_INSTANCE_REMOVE":
        return Names(before, ())
    prefix = "GANETI_POST_" if "GANETI_POST_INSTANCE_NIC_COUNT" in environ else "GANETI_"
    return Names(after, parse_addresses(environ, prefix), before if before != after else "")


def parse_addresses(environ: Mapping[str, str], prefix: str) -> tuple[str, ...]:
    """The addresses of NICs whose network is tagged for DNS."""
    count = environ.get(f"{prefix}INSTANCE_NIC_COUNT", "0")
    found: list[str] = []
    for index in range(min(int(count), _MAX_NICS) if count.isdecimal() else 0):
        nic = f"{prefix}INSTANCE_NIC{index}_"
        if TAG in environ.get(f"{nic}NETWORK_TAGS", "").split():
            try:
                found += _parse_nic(environ, nic)
            except ValueError as error:
                log.error("NIC %d gets no name: %s", index, error)
    return tuple(dict.fromkeys(found))


def _parse_nic(environ: Mapping[str, str], nic: str) -> list[str]:
    """Raises ValueError."""
    found = []
    if ip := environ.get(f"{nic}IP"):
        found.append(str(ipaddress.ip_address(ip)))
    mac = environ.get(f"{nic}MAC", "").lower()
    if subnet := environ.get(f"{nic}NETWORK_SUBNET6"):
        if not _MAC.fullmatch(mac):
            raise ValueError(f"{mac[:32]!r} is no MAC")
        found.append(str(make_eui64(IPv6Network(subnet), mac)))
    return found
