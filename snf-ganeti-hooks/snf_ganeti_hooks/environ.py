"""The environment that Ganeti gives to a NIC script, parsed.

Ganeti 3.0 and 3.1 run `kvm-vif-bridge` without arguments, 3.2 `network/MODE/up` and `down`;
the names are the same (hv_base.ConfigureNIC and Network.HooksDict in Ganeti's source). Ganeti
is trusted, but what it passes on was typed by people: a value that can't be meant is refused.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

from snf_ganeti.errors import InputError
from snf_ganeti_hooks.nic import Kind, Network, Nic

MODES = ("bridged", "routed", "openvswitch")
NAMES = (
    *("INSTANCE", "INTERFACE", "INTERFACE_INDEX", "INTERFACE_UUID", "INTERFACE_NAME", "TAGS"),
    *("MAC", "MODE", "IP", "LINK", "VLAN"),
    *("NETWORK_NAME", "NETWORK_UUID", "NETWORK_TAGS", "NETWORK_MAC_PREFIX"),
    *("NETWORK_SUBNET", "NETWORK_GATEWAY", "NETWORK_SUBNET6", "NETWORK_GATEWAY6"),
)
"""What is read here; a NIC's state keeps these and nothing else."""

_Value = TypeVar("_Value")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_MAC_PREFIX = re.compile(r"([0-9a-f]{2}:){2}[0-9a-f]{2}")
_INTERFACE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,15}")
_TABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_COMMUNICATION_TAP = "gnt.com."


def is_ours(environ: Mapping[str, str]) -> bool:
    """False for what Ganeti sets up itself: Open vSwitch, and its channel to an instance."""
    tap = environ.get("INTERFACE", "")
    return environ.get("MODE") != "openvswitch" and not tap.startswith(_COMMUNICATION_TAP)


def parse_nic(environ: Mapping[str, str]) -> Nic:
    """The NIC that a script is run for. Raises InputError."""
    mode = environ.get("MODE", "")
    if mode not in MODES:
        raise InputError(f"MODE is {mode!r}, and not {', '.join(MODES)}")
    nic = Nic(
        instance=_take(environ, "INSTANCE"),
        tap=_take_matching(environ, "INTERFACE", _INTERFACE, "the name of an interface"),
        mac=_take_mac(environ),
        mode=mode,
        index=_take_index(environ),
        uuid=environ.get("INTERFACE_UUID", ""),
        name=environ.get("INTERFACE_NAME", ""),
        link=_take_link(environ, mode),
        vlan=_take_vlan(environ),
        ip=_take_value(environ, "IP", ipaddress.ip_address),
        network=_parse_network(environ) if environ.get("NETWORK_NAME") else None,
        tags=tuple(environ.get("TAGS", "").split()),
    )
    check(nic)
    return nic


def check(nic: Nic) -> None:
    """Refuse what contradicts itself. Raises InputError."""
    network = nic.network
    if network and isinstance(nic.ip, IPv4Address) and network.subnet:
        _require(nic.ip in network.subnet, nic, f"{nic.ip} is outside {network.subnet}")
    if network and network.subnet6:
        _require(
            network.subnet6.prefixlen <= 64,
            nic,
            f"{network.subnet6} has no room for an address made from a MAC; use a /64",
        )
    if nic.kind is Kind.PRIVATE:
        _require(
            nic.mac.startswith(nic.mac_prefix),
            nic,
            f"its MAC {nic.mac} is outside the private network's prefix {nic.mac_prefix}",
        )
    if nic.kind is Kind.ROUTED:
        _require(
            bool(nic.addresses4 or nic.addresses6), nic, "is routed, and has no address to route"
        )
    else:
        _require(bool(nic.link), nic, "is bridged, and LINK names no bridge")


def _require(holds: bool, nic: Nic, reason: str) -> None:
    if not holds:
        raise InputError(f"NIC {nic.index} of {nic.instance}: {reason}")


def _parse_network(environ: Mapping[str, str]) -> Network:
    prefix = environ.get("NETWORK_MAC_PREFIX", "").lower()
    if prefix and not _MAC_PREFIX.fullmatch(prefix):
        raise InputError(f"NETWORK_MAC_PREFIX is {prefix!r}, and not three octets")
    return Network(
        name=environ["NETWORK_NAME"],
        uuid=environ.get("NETWORK_UUID", ""),
        tags=frozenset(environ.get("NETWORK_TAGS", "").split()),
        subnet=_take_value(environ, "NETWORK_SUBNET", IPv4Network),
        gateway=_take_value(environ, "NETWORK_GATEWAY", IPv4Address),
        subnet6=_take_value(environ, "NETWORK_SUBNET6", IPv6Network),
        gateway6=_take_value(environ, "NETWORK_GATEWAY6", IPv6Address),
        mac_prefix=prefix,
    )


def _take(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise InputError(f"{name} is not set", hint="Ganeti runs this script, not people")
    return value


def _take_matching(
    environ: Mapping[str, str], name: str, pattern: re.Pattern[str], what: str
) -> str:
    value = _take(environ, name)
    if not pattern.fullmatch(value):
        raise InputError(f"{name} is {value[:80]!r}, and not {what}")
    return value


def _take_mac(environ: Mapping[str, str]) -> str:
    mac = _take(environ, "MAC").lower()
    if not _MAC.fullmatch(mac) or int(mac[1], 16) & 1:
        raise InputError(f"MAC is {mac[:80]!r}, and not the address of a NIC")
    return mac


def _take_index(environ: Mapping[str, str]) -> int:
    value = environ.get("INTERFACE_INDEX") or "0"
    if not re.fullmatch(r"[0-9]{1,3}", value):
        raise InputError(f"INTERFACE_INDEX is {value[:80]!r}, and not a number")
    return int(value)


def _take_link(environ: Mapping[str, str], mode: str) -> str:
    if not environ.get("LINK"):
        return ""
    if mode == "routed":
        return _take_matching(environ, "LINK", _TABLE, "a routing table")
    return _take_matching(environ, "LINK", _INTERFACE, "the name of a bridge")


def _take_vlan(environ: Mapping[str, str]) -> int:
    """An access VLAN, `10` or `.10`. A trunk's tagged frames would pass no filter here."""
    value = environ.get("VLAN", "")
    if not value:
        return 0
    if not re.fullmatch(r"\.?[0-9]{1,4}", value) or not 0 < int(value.lstrip(".")) < 4095:
        raise InputError(
            f"VLAN is {value[:80]!r}, and not an access VLAN", hint="a trunk needs openvswitch"
        )
    return int(value.lstrip("."))


def _take_value(
    environ: Mapping[str, str], name: str, kind: Callable[[str], _Value]
) -> _Value | None:
    text = environ.get(name, "")
    try:
        if "%" in text:
            raise ValueError("a scope is not allowed")
        return kind(text) if text else None
    except ValueError as error:
        raise InputError(f"{name} {text[:80]!r} is refused: {error}") from None
