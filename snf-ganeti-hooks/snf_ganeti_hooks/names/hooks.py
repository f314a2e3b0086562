"""Ganeti's hooks after a job that changed an instance: its names, and what it left on a node.

Names are queued by the master's hook and sent by the service. What an instance that stopped or
moved left is the service's to remove; the hook sees to it where that does not run. Networks need
none: a NIC gets its network's data when it starts. See ganeti-hooks in Ganeti's documentation; the
variables are those of BuildInstanceHookEnv in its source.
"""

import ipaddress
import logging
import os
import re
import socket
from collections.abc import Mapping
from ipaddress import IPv6Network

from snf_ganeti import log as logs
from snf_ganeti_hooks import daemon, settings
from snf_ganeti_hooks.names import ddns_queue
from snf_ganeti_hooks.names.ddns import Names
from snf_ganeti_hooks.nic import make_eui64

log = logging.getLogger(__name__)

TAG = "dns"
NAMING = frozenset(f"instance-{verb}" for verb in ("add", "modify", "remove", "rename", "start"))
"""Hooks after which an instance's names may be others."""
LEAVING = frozenset(f"instance-{verb}" for verb in ("failover", "migrate", "remove", "stop"))
"""Hooks after which it may have left this node."""
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_MAX_NICS = 64


def run_hook() -> int:
    """Do what the job that just ended makes necessary here. Raises SnfError."""
    logs.configure("snf-ganeti-hooks")
    environ, site = os.environ, settings.read()
    path = environ.get("GANETI_HOOKS_PATH", "")
    if path in LEAVING:
        daemon.take_down_gone(site, daemon.read_all())
    is_master = environ.get("GANETI_MASTER") == socket.getfqdn()
    if path in NAMING and is_master and site.dns.server:
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
