"""Interfaces, through iproute2: batches to change, JSON to read; and settings of the kernel."""

import contextlib
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snf_ganeti import process
from snf_ganeti.errors import NodeError
from snf_ganeti_hooks.kernel import netlink

_SYSCTL = Path("/proc/sys/net")
_INTERFACE = struct.Struct("=BxHiII")  # linux/rtnetlink.h, ifinfomsg
_UP = 0x1
_LIMIT = 64 << 20
"""Bytes of JSON that are read: some ten thousand interfaces or routes."""


@dataclass(frozen=True)
class Link:
    """An interface. master: the bridge it is a port of, or empty. shows_netfilter: of a bridge,
    whether IP's connection tracking sees what passes it."""

    name: str
    index: int
    mtu: int
    mac: str
    master: str = ""
    is_up: bool = False
    kind: str = ""
    shows_netfilter: bool = False


def run_batch(lines: Sequence[str], *, ipv6: bool = False, force: bool = False) -> None:
    """Run `ip` commands in order, ending at the first that fails unless `force`.

    Raises CommandError.
    """
    if lines:
        options = ["-6"] if ipv6 else []
        argv = ["ip", *options, *(["-force"] if force else []), "-batch", "-"]
        text = "".join(f"{line}\n" for line in lines)
        process.run(argv, stdin=text.encode(), ok=range(256) if force else (0,))


def bring_up(interface: str, mac: str) -> None:
    """Give an interface its MAC, and switch it on. Raises NodeError."""
    body = _INTERFACE.pack(0, 0, find_index(interface), _UP, _UP)
    body += netlink.make_attributes([(1, bytes.fromhex(mac.replace(":", "")))])
    netlink.make([netlink.Change(netlink.NEW_LINK, 0, body, f"interface {interface}")])


def find_index(interface: str) -> int:
    """Raises NodeError."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise NodeError(f"there is no interface {interface}") from None


def query(*arguments: str) -> list[dict[str, Any]]:
    """What `ip -json` lists. Raises CommandError."""
    output = process.run(["ip", "-json", *arguments], limit=_LIMIT).stdout
    return [each for each in json.loads(output or b"[]") if each]


def find_links() -> dict[str, Link]:
    """All interfaces by name."""
    return {link.name: link for link in map(_parse_link, query("-details", "link", "show"))}


def find_link(name: str) -> Link | None:
    path = Path("/proc/net/dev")
    if not any(line.split(":")[0].strip() == name for line in path.read_text().splitlines()):
        return None
    return next(map(_parse_link, query("-details", "link", "show", "dev", name)), None)


def find_vlans(port: str = "") -> dict[str, dict[int, bool]]:
    """Port of a bridge → the VLANs that it is in → whether as an access port: what comes without
    a tag is the VLAN's, and what leaves gets none. port: only of this one. Raises CommandError."""
    only = ["dev", port] if port else []
    output = process.run(["bridge", "-json", "vlan", "show", *only], limit=_LIMIT).stdout
    return {shown["ifname"]: _parse_vlans(shown) for shown in json.loads(output or b"[]")}


def set_sysctls(values: Mapping[str, int]) -> None:
    """Write settings under /proc/sys/net, named as `ipv4/conf/NAME/KEY`. Raises NodeError."""
    for name, value in values.items():
        try:
            (_SYSCTL / name).write_text(f"{value}\n")
        except OSError as error:
            raise NodeError(f"{_SYSCTL / name} can't be set: {error.strerror}") from None


def read_sysctl(name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int((_SYSCTL / name).read_text())
    return None


def _parse_vlans(shown: dict[str, Any]) -> dict[int, bool]:
    return {
        vlan: {"PVID", "Egress Untagged"} <= set(each.get("flags", ()))
        for each in shown["vlans"]
        for vlan in range(each["vlan"], each.get("vlanEnd", each["vlan"]) + 1)
    }


def _parse_link(entry: dict[str, Any]) -> Link:
    info = entry.get("linkinfo", {})
    data = info.get("info_data", {})
    return Link(
        name=entry["ifname"],
        index=entry["ifindex"],
        mtu=entry["mtu"],
        mac=entry.get("address", ""),
        master=entry.get("master", ""),
        is_up="UP" in entry["flags"],
        kind=info.get("info_kind", ""),
        shows_netfilter=bool(data.get("nf_call_iptables") and data.get("nf_call_ip6tables")),
    )
