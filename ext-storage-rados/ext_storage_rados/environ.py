"""The environment that Ganeti gives to an ExtStorage script, parsed.

Names and meanings are those of ganeti-extstorage-interface(7), and of what Ganeti 3.0 to 3.2
really set: sizes are MiB, a null parameter is the text `None`. Ganeti is trusted, so what is
missing means that something else runs the script; names go to Ceph, and are checked.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ext_storage_rados.names import check_name
from snf_ganeti.errors import SnfError

_PARAMETER_PREFIX = "EXTP_"
_MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Request:
    """What a script is asked for. Sizes are bytes, and 0 when the action has none.

    parameters: the disk's, name in lower case → text. label: the disk's own name.
    """

    volume: str
    uuid: str = ""
    label: str = ""
    size: int = 0
    new_size: int = 0
    metadata: str = ""
    snapshot: str = ""
    exclusive: bool = True
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_request(environ: Mapping[str, str]) -> Request:
    """Raises SnfError."""
    return Request(
        volume=check_name("the volume", _take(environ, "VOL_NAME")),
        uuid=environ.get("VOL_UUID", ""),
        label=environ.get("VOL_CNAME", ""),
        size=_take_size(environ, "VOL_SIZE") or _take_size(environ, "VOL_SNAPSHOT_SIZE"),
        new_size=_take_size(environ, "VOL_NEW_SIZE"),
        metadata=environ.get("VOL_METADATA", ""),
        snapshot=_take_snapshot(environ),
        exclusive=environ.get("VOL_OPEN_EXCLUSIVE", "True") != "False",
        parameters={
            name.removeprefix(_PARAMETER_PREFIX).lower().replace("-", "_"): value
            for name, value in environ.items()
            if name.startswith(_PARAMETER_PREFIX)
        },
    )


def _take_snapshot(environ: Mapping[str, str]) -> str:
    name = environ.get("VOL_SNAPSHOT_NAME", "")
    return check_name("the snapshot", name) if name else ""


def _take(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SnfError(
            f"{name} is not set in the environment",
            hint="Ganeti runs this script; snf-rados-image is for operators",
        )
    return value


def _take_size(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name) or "0"
    if not re.fullmatch(r"[0-9]{1,12}", value):
        raise SnfError(f"{name} is {value!r}, and not a whole number of MiB")
    return int(value) * _MEBIBYTE
