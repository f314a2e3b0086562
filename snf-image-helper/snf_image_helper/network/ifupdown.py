"""ifupdown of the Debian family: /etc/network/interfaces, interfaces(5).

`auto mac/aa:00:00:12:34:56/=nic0` brings up the NIC of that MAC, whatever its name, with
the stanzas of `nic0` (ifupdown 0.8.20 and newer; seen at work in 0.8.41 and 0.8.44). At
boot, ifup runs once udev has settled, so the NIC is there. Every gateway's route is added
as on-link, so one outside the subnet needs nothing more.

ifupdown takes the first DHCP client it finds: dhclient, udhcpc, dhcpcd. It knows how to do
DHCPv6 with the first alone. dhcpcd does all of IPv6 by itself, as the router's flags say,
when it runs for IPv4, and is told to run for it otherwise.
"""

import re
from collections.abc import Collection, Iterator, Sequence

from snf_image_helper.network.backend import (
    BackEnd,
    Plan,
    accepts_advertisements,
    find_files,
    iterate_nics,
    may_be_nic,
)
from snf_image_helper.protocol import Address, Nic
from snf_image_helper.task import TaskFailed
from snf_image_helper.tree import Tree

PATH = "/etc/network/interfaces"
FOLDER = "/etc/network/interfaces.d"
DHCPCD = "/etc/dhcpcd.conf"
_TOOL = "/sbin/ifup"
_HOTPLUG = "/lib/udev/ifupdown-hotplug"
"""Debian's own: ifupdown-ng, ifupdown2 and busybox have an ifup but no such patterns."""
_CLIENTS = ("dhclient", "udhcpc", "dhcpcd")
"""In the order in which ifupdown looks for them."""
_LOOPBACK = "auto lo\niface lo inet loopback\n"
_STANZA = ("iface", "mapping")
_LIST = re.compile(r"auto|allow-\S+|no-auto-down|no-scripts|rename")
_OTHER = re.compile(r"source\S*|template")


def detect(tree: Tree) -> bool:
    return tree.is_file(_TOOL) and tree.is_file(_HOTPLUG)


def find_client(tree: Tree) -> str:
    """The DHCP client that ifupdown will take; empty when the guest has none."""
    folders = ("/sbin", "/usr/sbin", "/bin", "/usr/bin")
    return next(
        (name for name in _CLIENTS if any(tree.is_file(f"{at}/{name}") for at in folders)), ""
    )


def make_plan(tree: Tree, nics: Sequence[Nic]) -> Plan:
    """Raises TaskFailed: the guest lacks the DHCP client that a NIC needs."""
    paths = [PATH] if tree.is_file(PATH) else []
    old = {path: tree.read_text(path) for path in (*paths, *find_files(tree, FOLDER, ""))}
    logical = {name for text in old.values() for name in find_logical_names(text)}
    new = {path: drop_nics(text, logical) for path, text in old.items()}
    client = find_client(tree)
    stanzas = make_stanzas(nics, client)
    if stanzas:
        new[PATH] = f"{new.get(PATH, _LOOPBACK).rstrip()}\n\n{stanzas}"
    if client == "dhcpcd" and stanzas and tree.is_file(DHCPCD):
        old[DHCPCD] = tree.read_text(DHCPCD)
        new[DHCPCD] = use_mac_for_slaac(old[DHCPCD])
    empty = tuple(path for path in new if path.startswith(FOLDER) and _is_empty(new[path]))
    changed = (path for path in new if new[path] != old.get(path) and path not in empty)
    return Plan({path: new[path] for path in changed}, empty)


def make_stanzas(nics: Sequence[Nic], client: str) -> str:
    """The stanzas for these NICs, for a guest with this DHCP client. Raises TaskFailed."""
    blocks = []
    for name, metric, nic in iterate_nics(nics):
        _require_client(nic, client)
        lines = [f"auto mac/{nic.mac}/={name}"]
        lines += _make_stanza(f"iface {name} inet", _make_ipv4(nic, metric))
        lines += _make_stanza(f"iface {name} inet6", _make_ipv6(nic, metric, client))
        blocks.append("".join(f"{line}\n" for line in lines))
    return "\n".join(blocks)


def _require_client(nic: Nic, client: str) -> None:
    needs_ipv6 = nic.ipv6 in ("dhcp", "slaac_dhcp")
    if (nic.ipv4 == "dhcp" and not client) or (needs_ipv6 and client not in ("dhclient", "dhcpcd")):
        raise TaskFailed(
            f"NIC {nic.mac} needs DHCP{'v6' if needs_ipv6 else ''} and the image has no client that"
            " ifupdown can use; install isc-dhcp-client or dhcpcd-base in the image"
        )


def _make_stanza(head: str, body: Sequence[str]) -> list[str]:
    """body: the method, then its options."""
    return [f"{head} {body[0]}", *(f"    {line}" for line in body[1:])] if body else []


def _make_ipv4(nic: Nic, metric: int) -> list[str]:
    if isinstance(nic.ipv4, Address):
        return _make_static(nic.ipv4, metric)
    return ["dhcp", f"metric {metric}"] if nic.ipv4 == "dhcp" else []


def _make_ipv6(nic: Nic, metric: int, client: str) -> list[str]:
    if isinstance(nic.ipv6, Address):
        advertisements = ["accept_ra 0"] if accepts_advertisements(nic) is False else []
        return [*_make_static(nic.ipv6, metric), *advertisements]
    if client == "dhcpcd" and nic.ipv4 == "dhcp":
        return []  # it does IPv6 as well, and a second one would be in its way
    if client == "dhcpcd" and nic.ipv6 in _DHCPCD:
        run = f"dhcpcd --ipv6only {_DHCPCD[nic.ipv6]} $IFACE"
        return ["manual", f"up {run}", "down dhcpcd --ipv6only --exit $IFACE"]
    return list(_IPV6[nic.ipv6])


_IPV6: dict[str | None, tuple[str, ...]] = {
    None: (),
    "slaac": ("auto", "privext 0"),
    "slaac_dhcp": ("auto", "privext 0", "dhcp 1"),
    "dhcp": ("dhcp", "accept_ra 2"),
}
# dhcpcd takes only a lease for an end, and would hold up the boot until its time is over.
_DHCPCD: dict[str | None, str] = {"slaac_dhcp": "--background", "dhcp": "--waitip=6"}


def _make_static(address: Address, metric: int) -> list[str]:
    gateway = [f"gateway {address.gateway}", f"metric {metric}"] if address.gateway else []
    return ["static", f"address {address.address}/{address.prefix}", *gateway]


def find_logical_names(text: str) -> set[str]:
    """The names that an interfaces file gives to NICs: `home` in `auto /eth*=home`."""
    names = (name for line in _split(text) for name in _read_list(line) if _is_nic(name))
    return {name.partition("=")[2] for name in names if "=" in name}


def drop_nics(text: str, logical: Collection[str] = ()) -> str:
    """An interfaces file without what it says of Ethernet NICs, or of these logical names.

    The loopback, bridges, VLANs and the like stay, as do comments and `source` lines.
    """
    kept, dropping = [], False
    for line in _split(text):
        words = line.replace("\\\n", " ").split()
        if not words or words[0].startswith("#"):
            kept.append(line)
        elif words[0] in _STANZA:
            dropping = any(_is_nic(name) or name in logical for name in words[1:2])
            kept += [] if dropping else [line]
        elif _LIST.fullmatch(words[0]):
            names = [name for name in words[1:] if not _is_nic(name)]
            if len(names) < len(words) - 1:
                line = f"{words[0]} {' '.join(names)}\n"
            kept += [line] if names else []
        elif _OTHER.fullmatch(words[0]) or not dropping:
            kept.append(line)
    return "".join(kept)


def use_mac_for_slaac(text: str) -> str:
    """dhcpcd.conf(5) whose SLAAC addresses are made of the MAC: the only ones that a network
    can know before the guest has spoken."""
    return re.sub(r"^(\s*slaac)\s+private\b.*$", r"\1 hwaddr", text, flags=re.MULTILINE)


def _split(text: str) -> Iterator[str]:
    """The lines of an interfaces file with those that a backslash continues."""
    return (match[0] for match in re.finditer(r"(?:[^\n]*\\\n)*[^\n]*\n|[^\n]+\Z", text))


def _read_list(line: str) -> list[str]:
    words = line.replace("\\\n", " ").split()
    return words[1:] if words and _LIST.fullmatch(words[0]) else []


def _is_nic(name: str) -> bool:
    return "/" in name or may_be_nic(name.partition("=")[0])


def _is_empty(text: str) -> bool:
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.split("\n"))


BACK_END = BackEnd("ifupdown", f"{_TOOL} with {_HOTPLUG}", detect, make_plan)
