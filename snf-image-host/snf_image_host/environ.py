"""The environment that Ganeti gives to an OS script, parsed.

Names and meanings are those of version 20 of Ganeti's OS interface, ganeti-os-interface(7),
and of what Ganeti 3.0 to 3.2 really set. Ganeti is trusted, so a variable that is missing or
malformed means that something else runs the script, or another version of the interface.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from snf_ganeti.errors import SnfError

API_VERSION = 20
Direction = Literal["import", "export"]

_PARAMETER_PREFIX = "OSP_"
_HYPERVISOR_PREFIX = "INSTANCE_HV_"
_MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Disk:
    """A disk of the instance. size: bytes. At least one of `path` (on this node) and `uri`
    (for QEMU) is there; what is absent is empty."""

    index: int
    size: int
    access: str = "rw"
    path: str = ""
    uri: str = ""
    uuid: str = ""
    name: str = ""
    frontend_type: str = ""
    backend_type: str = ""


@dataclass(frozen=True)
class Nic:
    """A NIC of the instance, as Ganeti's text; what is absent is empty."""

    index: int
    mac: str
    mode: str
    ip: str = ""
    link: str = ""
    bridge: str = ""
    name: str = ""
    uuid: str = ""
    network_name: str = ""
    network_uuid: str = ""
    network_tags: tuple[str, ...] = ()
    network_subnet: str = ""
    network_gateway: str = ""
    network_subnet6: str = ""
    network_gateway6: str = ""
    network_mac_prefix: str = ""


@dataclass(frozen=True)
class Instance:
    """The instance that a script works on.

    os: definition and variant, as `snf-image+default`; variant: empty without one.
    old_name: set for `rename`. hv: the hypervisor's parameters by name.
    """

    name: str
    uuid: str = ""
    os: str = ""
    variant: str = ""
    hypervisor: str = ""
    reinstall: bool = False
    old_name: str = ""
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    hv: Mapping[str, str] = field(default_factory=dict)
    debug_level: int = 0


@dataclass(frozen=True)
class Transfer:
    """The one disk that `import` or `export` works on.

    device: what Ganeti names first, the same as `path` when there is one. size_fd: where
    `export` writes how many bytes will come, or None.
    """

    index: int
    device: str = ""
    path: str = ""
    uri: str = ""
    size_fd: int | None = None


def parse_instance(environ: Mapping[str, str]) -> Instance:
    """The environment of create, rename, import or export. Raises SnfError."""
    require_api(environ)
    return Instance(
        name=_take(environ, "INSTANCE_NAME"),
        uuid=environ.get("INSTANCE_UUID", ""),
        os=environ.get("INSTANCE_OS", ""),
        variant=parse_variant(environ),
        hypervisor=_take(environ, "HYPERVISOR"),
        reinstall=environ.get("INSTANCE_REINSTALL", "") == "1",
        old_name=environ.get("OLD_INSTANCE_NAME", ""),
        disks=tuple(_parse_disk(environ, n) for n in range(_take_int(environ, "DISK_COUNT"))),
        nics=tuple(_parse_nic(environ, n) for n in range(_take_int(environ, "NIC_COUNT"))),
        hv=_take_prefixed(environ, _HYPERVISOR_PREFIX),
        debug_level=_take_int(environ, "DEBUG_LEVEL", "0"),
    )


def parse_transfer(environ: Mapping[str, str], direction: Direction) -> Transfer:
    """What `import` or `export` gets beside the instance. Raises SnfError."""
    prefix = direction.upper()
    transfer = Transfer(
        index=_take_int(environ, f"{prefix}_INDEX"),
        device=environ.get(f"{prefix}_DEVICE", ""),
        path=environ.get(f"{prefix}_DISK_PATH", ""),
        uri=environ.get(f"{prefix}_DISK_URI", ""),
        # An import inherits the variable from Ganeti's daemon, but has nothing to say there.
        size_fd=_take_int(environ, "EXP_SIZE_FD")
        if direction == "export" and environ.get("EXP_SIZE_FD")
        else None,
    )
    if not (transfer.device or transfer.path or transfer.uri):
        raise SnfError(f"none of {prefix}_DEVICE, {prefix}_DISK_PATH and {prefix}_DISK_URI is set")
    return transfer


def parse_variant(environ: Mapping[str, str]) -> str:
    """The variant's name, empty without one; all that `verify` gets beside parameters."""
    return environ.get("OS_VARIANT", "")


def parse_raw_parameters(environ: Mapping[str, str]) -> dict[str, str]:
    """The OS parameters: name in lower case → text. Some are secret."""
    return _take_prefixed(environ, _PARAMETER_PREFIX)


def require_api(environ: Mapping[str, str]) -> None:
    """Raises SnfError unless Ganeti speaks the version that we do."""
    version = _take(environ, "OS_API_VERSION")
    if version != str(API_VERSION):
        raise SnfError(
            f"OS_API_VERSION is {version!r}, and snf-image speaks {API_VERSION}",
            hint="use Ganeti 3.0 or newer",
        )


def _parse_disk(environ: Mapping[str, str], index: int) -> Disk:
    prefix = f"DISK_{index}_"
    size = _take_int(environ, prefix + "SIZE", digits=12) * _MEBIBYTE
    disk = Disk(index=index, size=size, **_take_texts(Disk, environ, prefix))
    if not (disk.path or disk.uri):
        raise SnfError(f"neither {prefix}PATH nor {prefix}URI is set")
    if disk.access not in ("rw", "ro"):
        raise SnfError(f"{prefix}ACCESS is {disk.access!r}, and not rw or ro")
    return disk


def _parse_nic(environ: Mapping[str, str], index: int) -> Nic:
    prefix = f"NIC_{index}_"
    for name in ("MAC", "MODE"):
        _take(environ, prefix + name)
    tags = tuple(environ.get(prefix + "NETWORK_TAGS", "").split())
    return Nic(index=index, network_tags=tags, **_take_texts(Nic, environ, prefix))


def _take_texts(
    kind: type[Disk] | type[Nic], environ: Mapping[str, str], prefix: str
) -> dict[str, Any]:
    """Those fields of a dataclass that are text and set, by name."""
    names = (each.name for each in fields(kind) if each.type is str)
    return {name: value for name in names if (value := environ.get(prefix + name.upper()))}


def _take_prefixed(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in environ.items()
        if name.startswith(prefix)
    }


def _take(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SnfError(
            f"{name} is not set in the environment",
            hint="Ganeti runs this script; without Ganeti use snf-image deploy",
        )
    return value


def _take_int(
    environ: Mapping[str, str], name: str, default: str | None = None, *, digits: int = 3
) -> int:
    """digits: how many it may have; a count is used before anything checks it."""
    value = _take(environ, name) if default is None else environ.get(name) or default
    if not re.fullmatch(rf"[0-9]{{1,{digits}}}", value):
        raise SnfError(f"{name} is {value!r}, and not a whole number of up to {digits} digits")
    return int(value)
