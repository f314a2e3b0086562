"""What an instance looks like now, asked of Ganeti over LUXI with Ganeti's own library."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from snf_ganeti.errors import NodeError
from snf_ganeti_eventd.messages.redaction import Keep, filter_value

log = logging.getLogger(__name__)

GANETI_LIBRARY = "/usr/share/ganeti/default"
FIELDS = (
    *("name", "tags", "hvparams"),
    *("nic.names", "nic.uuids", "nic.networks.names", "nic.ips", "nic.macs"),
    *("nic.modes", "nic.links", "disk.names", "disk.uuids", "disk.sizes"),
)
PROFILES = ("unprotected", "limited", "protected")
_HVPARAMS = ("boot_order", "cdrom_image_path")
_TAG = "synnefo:network:"
_REST = 30.0
"""Seconds without questions after one that was not answered."""

Details = Mapping[str, Any]
"""The `instance_*` fields of an event."""
Query = Callable[[Sequence[str]], list[Mapping[str, Any]]]
"""Names of instances → a mapping of FIELDS for each that exists; blocks."""


class InstanceError(NodeError):
    """Ganeti did not answer."""


class Inspector:
    """Asks for many instances at once, never longer than `timeout` seconds, and not at all for
    a while when Ganeti does not answer: an event without details is better than none."""

    def __init__(self, query: Query, timeout: float) -> None:
        self._query = query
        self._timeout = timeout
        self._silent_until = 0.0
        self._executor = ThreadPoolExecutor(1, "luxi")
        self.failures = 0

    async def inspect(self, names: Collection[str]) -> dict[str, Details]:
        """Details by name; an instance that is gone, or not known in time, is left out."""
        if not names:
            return {}
        if time.monotonic() < self._silent_until:
            self.failures += len(names)
            return {}
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                rows = await loop.run_in_executor(self._executor, self._query, sorted(names))
        except (InstanceError, TimeoutError) as error:
            self._silent_until = time.monotonic() + _REST
            self.failures += len(names)
            reason = str(error) or f"no answer within {self._timeout:g} s"
            log.warning("LUXI: %s; events go without NICs and disks for a while", reason)
            return {}
        return {row["name"]: make_details(row) for row in rows}

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def make_details(row: Mapping[str, Any]) -> Details:
    """The `instance_*` fields from a row of FIELDS. Disk sizes are MiB."""
    columns = ("names", "networks.names", "ips", "macs", "modes", "links", "uuids")
    keys = ("name", "network", "ip", "mac", "mode", "link", "uuid")
    nics = [
        dict(zip(keys, values, strict=True))
        for values in zip(*(row[f"nic.{column}"] or () for column in columns), strict=False)
    ]
    for index, nic in enumerate(nics):
        profile = find_profile(row["tags"] or (), index, nic["name"], nic["uuid"])
        if profile:
            nic["firewall"] = profile
    disks = zip(*(row[f"disk.{column}"] or () for column in ("names", "sizes", "uuids")),
                strict=False)  # fmt: skip
    hvparams = row["hvparams"] or {}
    return {
        "instance_nics": nics,
        "instance_disks": [
            {"name": name, "size": size, "uuid": uuid} for name, size, uuid in disks
        ],
        "instance_hvparams": {name: filter_value(Keep(), hvparams.get(name)) for name in _HVPARAMS},
    }


def find_profile(tags: Collection[str], index: int, name: str | None, uuid: str) -> str | None:
    """A NIC's firewall profile: tags name it by UUID, name or index, the first of these wins."""
    for ident in (uuid, name, str(index)):
        for profile in PROFILES:
            if ident and f"{_TAG}{ident}:{profile}" in tags:
                return profile
    return None


def make_luxi_query(socket: Path, timeout: float) -> Query:
    """A `Query` of this node's Ganeti."""

    def query(names: Sequence[str]) -> list[Mapping[str, Any]]:
        if GANETI_LIBRARY not in sys.path:
            sys.path.append(GANETI_LIBRARY)
        try:
            from ganeti import constants, luxi, qlang
        except ImportError as error:
            raise InstanceError(f"Ganeti's library is not installed: {error}") from None
        try:
            client = luxi.Client(address=str(socket), timeouts=(timeout, timeout))
            try:
                # Asked for names alone, Ganeti refuses to answer when one of them is gone.
                condition = [qlang.OP_AND, qlang.MakeSimpleFilter("name", list(names))]
                response = client.Query(constants.QR_INSTANCE, list(FIELDS), condition)
            finally:
                client.Close()
        except Exception as error:  # the library's tree of errors has several roots
            raise InstanceError(f"{socket}: {type(error).__name__}: {str(error)[:200]}") from None
        return [
            {
                field: value if status == constants.RS_NORMAL else None
                for field, (status, value) in zip(FIELDS, row, strict=True)
            }
            for row in response.data
        ]

    return query
