"""What Ganeti keeps on this node: running instances' taps and NICs, and who the master is.

    /run/ganeti/kvm-hypervisor/nic/INSTANCE/INDEX   the tap's name
    /run/ganeti/kvm-hypervisor/conf/INSTANCE.runtime  JSON; its second element, the NICs

These are internals of Ganeti 3.0 to 3.2, read and never written. A file that can't be read or
understood is passed over: it only serves to repair.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RUN = Path("/run/ganeti/kvm-hypervisor")
DATA = Path("/var/lib/ganeti")
_SIZE_LIMIT = 4 << 20


def find_running_nics(run: Path = RUN) -> Iterator[dict[str, str]]:
    """The NICs that instances have here, as the environment of a NIC script."""
    for folder in sorted((run / "nic").glob("*/")):
        nics = read_runtime_nics(run / "conf" / f"{folder.name}.runtime")
        for path in sorted(folder.iterdir()):
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError):
                tap = path.read_text()[:16].strip()
                yield make_environ(folder.name, int(path.name), tap, nics)


def read_runtime_nics(path: Path) -> list[Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            runtime = json.loads(file.read(_SIZE_LIMIT))
        return list(runtime[1])
    except (OSError, ValueError, IndexError, TypeError):
        return []


def make_environ(
    instance: str, index: int, tap: str, nics: list[Mapping[str, Any]]
) -> dict[str, str]:
    """What Ganeti's ConfigureNIC would give for a NIC. Raises KeyError, IndexError, TypeError."""
    nic = nics[index]
    parameters = nic["nicparams"]
    values = {
        "INSTANCE": instance,
        "INTERFACE": tap,
        "INTERFACE_INDEX": str(index),
        "INTERFACE_UUID": nic.get("uuid"),
        "INTERFACE_NAME": nic.get("name"),
        "MAC": nic["mac"],
        "IP": nic.get("ip"),
        "MODE": parameters["mode"],
        "LINK": parameters.get("link"),
        "VLAN": parameters.get("vlan"),
    }
    if nic.get("network"):
        values |= _make_network_environ(nic["netinfo"])
    return {name: str(value) for name, value in values.items() if value}


def _make_network_environ(network: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        "NETWORK_NAME": network["name"],
        "NETWORK_UUID": network.get("uuid"),
        "NETWORK_SUBNET": network.get("network"),
        "NETWORK_GATEWAY": network.get("gateway"),
        "NETWORK_SUBNET6": network.get("network6"),
        "NETWORK_GATEWAY6": network.get("gateway6"),
        "NETWORK_MAC_PREFIX": network.get("mac_prefix"),
        "NETWORK_TAGS": " ".join(network.get("tags") or []),
    }


def read_ssconf(name: str, data: Path = DATA) -> str:
    """A value that Ganeti keeps on every node, such as `master_node`; empty without it."""
    try:
        return (data / f"ssconf_{name}").read_text().strip()
    except OSError:
        return ""
