"""Binding files for nfdhcpd, the predecessor's DHCP server: a file a tap, KEY=value.

nfdhcpd reads a file when it is closed after writing, and not when it is renamed, so it is
written in place.
"""

from pathlib import Path

from snf_ganeti_hooks.nic import Kind, Nic, make_eui64


def make_binding(nic: Nic, mtu: int = 0) -> str:
    network = nic.network
    values = {
        "INDEV": nic.tap if nic.kind is Kind.ROUTED else nic.link,
        "IP": str(nic.addresses4[0]) if nic.addresses4 else "",
        "MAC": nic.mac,
        "HOSTNAME": nic.instance,
        "TAGS": " ".join(sorted(nic.network_tags)),
    }
    if network:
        values |= {
            "GATEWAY": str(network.gateway or ""),
            "SUBNET": str(network.subnet or ""),
            "GATEWAY6": str(network.gateway6 or ""),
            "SUBNET6": str(network.subnet6 or ""),
            "EUI64": str(make_eui64(network.subnet6, nic.mac)) if network.subnet6 else "",
        }
    if mtu:
        values["MTU"] = str(mtu)
    return "".join(f"{key}={value}\n" for key, value in values.items())


def write_binding(folder: Path, nic: Nic, mtu: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / nic.tap).write_text(make_binding(nic, mtu))


def remove_binding(folder: Path, tap: str) -> None:
    (folder / tap).unlink(missing_ok=True)
