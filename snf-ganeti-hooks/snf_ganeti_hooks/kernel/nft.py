"""nftables in the kernel, through libnftables' JSON: the one place that reads and changes it."""

import contextlib
import ctypes
import json
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import nftables

from snf_ganeti import process
from snf_ganeti.errors import NodeError
from snf_ganeti_hooks.firewall.base import Base, Tracker
from snf_ganeti_hooks.firewall.chain import FAMILIES
from snf_ganeti_hooks.firewall.element import TABLE, Command, Element
from snf_ganeti_hooks.firewall.expression import TARGET, TARGET_NAME
from snf_ganeti_hooks.firewall.listing import parse_ruleset
from snf_ganeti_hooks.firewall.part import Part
from snf_ganeti_hooks.firewall.transaction import make_base_commands, make_change

_LIBRARY = "libnftables.so.1"
_PROBE = "snf_probe"


class NftError(NodeError):
    """A transaction was refused; nothing of it was done."""


class _Contexts(threading.local):
    """A thread's own context of libnftables. It is kept, because the kernel lets nobody close
    one before what its last transaction removed is gone, some ten milliseconds later."""

    kept: Any = None

    def get(self) -> Any:
        if self.kept is None:
            self.kept = open_context()
        return self.kept


_contexts = _Contexts()


def open_context() -> Any:
    """Raises NodeError."""
    try:
        ctypes.CDLL(_LIBRARY)  # without it the class complains to standard error, too
        nft = nftables.Nftables(_LIBRARY)
    except OSError as missing:
        raise NodeError(f"nftables can't be used: {missing}") from None
    nft.set_json_output(True)
    return nft


def run(commands: Sequence[Command], nft: Any = None) -> list[dict[str, Any]]:
    """Run commands as one transaction; gives what libnftables listed. Raises NftError."""
    nft = nft or _contexts.get()
    status, output, error = nft.cmd(make_text(commands))
    if status:
        raise NftError(f"nftables refused: {_find_reason(error)}")
    try:
        listed: list[dict[str, Any]] = json.loads(output)["nftables"] if output else []
    except (ValueError, KeyError):
        raise NodeError("what nftables lists can't be read") from None
    return listed


def make_text(commands: Sequence[Command]) -> str:
    """JSON for the library that is installed. From 1.0.9 on (what has this symbol) an address
    is set only from what has the type of one, and a target has it by its name, unknown before."""
    text = json.dumps({"nftables": list(commands)})
    if hasattr(ctypes.CDLL(_LIBRARY), "nft_ctx_input_get_flags"):
        return text.replace(f'"value": {json.dumps(TARGET)}', f'"value": {json.dumps(TARGET_NAME)}')
    return text


def change(base: Base, tap: str, present: Iterable[Element], wanted: Part) -> None:
    """Make a NIC's part what is wanted, in one transaction. Raises NftError.

    present: what it should have now. When that is refused, because something else is there or
    the base is not, it is read what there is.
    """
    had = frozenset(present)
    try:
        run(make_change(tap, had, wanted))
    except NftError as refused:
        try:
            found = parse_ruleset(read_tables()).elements.get(tap, ())
        except NodeError:  # libnftables 1.0.6 lists no table that is another program's
            raise refused from None
        run([*make_base_commands(base), *make_change(tap, found, wanted)])


def read_tables() -> list[dict[str, Any]]:
    """All objects of our tables, counters included; empty without tables. Raises NftError."""
    nft = open_context()  # of its own: what was listed stays in memory as long as this does
    found = run([{"list": {"tables": None}}], nft)
    present = {
        (each["table"]["family"], each["table"]["name"]) for each in found if "table" in each
    }
    families = [family for family in FAMILIES if (family, TABLE) in present]
    return [
        each
        for family in families
        for each in run([{"list": {"table": {"family": family, "name": TABLE}}}], nft)
    ]


def find_tracker() -> Tracker:
    """What this kernel can track bridged connections with, found out by trying."""
    if _has_bridge_tracking():
        return "bridge"
    with contextlib.suppress(NodeError):
        process.run(["modprobe", "--quiet", "nf_conntrack_bridge"])
    return "bridge" if _has_bridge_tracking() else "br_netfilter"


def _has_bridge_tracking() -> bool:
    names = {"family": "bridge", "table": _PROBE}
    state = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}}
    chain = {**names, "name": "probe"}
    try:
        run(
            [
                {"add": {"table": {"family": "bridge", "name": _PROBE}}},
                {"add": {"chain": chain}},
                {"add": {"rule": {**names, "chain": "probe", "expr": [state]}}},
                {"delete": {"table": {"family": "bridge", "name": _PROBE}}},
            ]
        )
    except NftError:
        return False
    return True


def _find_reason(error: str) -> str:
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    wanted = (line for line in lines if "rror" in line)
    return next(wanted, lines[0] if lines else "it gave no reason")[:200]
