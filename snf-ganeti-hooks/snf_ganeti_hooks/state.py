"""What each NIC of this node should be: one file a tap, gone with the node's next boot.

    /run/snf-ganeti-hooks/nics/TAP.json      what Ganeti said, and the interface's index
    /run/snf-ganeti-hooks/claims/SCOPE,ADDR  which tap has an address
    /run/snf-ganeti-hooks/lock               held by whoever changes any of it, or the kernel

A file is whole or not there. One that can't be read is as good as absent, and is reported.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snf_ganeti.errors import InputError
from snf_ganeti.lock import lock_file
from snf_ganeti_hooks.environ import NAMES, parse_nic
from snf_ganeti_hooks.networks.routing import find_addresses
from snf_ganeti_hooks.nic import Kind, Nic

RUN = Path("/run/snf-ganeti-hooks")
_LOCK_SECONDS = 60.0
_SIZE_LIMIT = 1 << 20
_SUFFIX = ".json"
_parsed: dict[str, tuple[tuple[int, ...], "NicState"]] = {}
"""What was parsed of each file as it was then; the service reads all of them every second. By its
path as text: with a thousand NICs the making of Path objects was most of that."""


@dataclass(frozen=True)
class NicState:
    """nic: as Ganeti said; environ: the words it was parsed from. ifindex: of the tap that it
    was set up on. created: seconds since the epoch. tags_known: False after a repair from
    Ganeti's files, which hold no tags."""

    nic: Nic
    environ: Mapping[str, str]
    ifindex: int
    created: float
    tags_known: bool = True

    @property
    def is_live(self) -> bool:
        return find_ifindex(self.nic.tap) == self.ifindex


def find_ifindex(interface: str) -> int:
    """An interface's index, 0 when there is none of that name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def make_state(environ: Mapping[str, str], *, tags_known: bool = True) -> NicState:
    """The state of a NIC that is set up now. Raises InputError."""
    kept = {name: environ[name] for name in NAMES if environ.get(name)}
    nic = parse_nic(kept)
    return NicState(nic, kept, find_ifindex(nic.tap), time.time(), tags_known)


def replace_tags(state: NicState, tags: tuple[str, ...]) -> NicState:
    environ = {**state.environ, "TAGS": " ".join(tags)}
    return replace(state, nic=replace(state.nic, tags=tags), environ=environ, tags_known=True)


@contextlib.contextmanager
def locked(run: Path = RUN) -> Iterator[None]:
    """Nobody else changes NICs for the block. Raises LockError."""
    with lock_file(run / "lock", timeout=_LOCK_SECONDS):
        yield


def write_state(state: NicState, run: Path = RUN) -> None:
    document = {
        "environ": dict(state.environ),
        "ifindex": state.ifindex,
        "created": state.created,
        "tags_known": state.tags_known,
    }
    write_file(Path(_find_path(state.nic.tap, run)), json.dumps(document, indent=1) + "\n")
    for claim in _find_claims(state.nic, run):
        write_file(claim, state.nic.tap)


def read_state(tap: str, run: Path = RUN) -> NicState | None:
    """A NIC's state; None when there is none, or none that can be read."""
    try:
        return parse_state(_find_path(tap, run))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None


def read_states(run: Path = RUN) -> tuple[dict[str, NicState], list[str]]:
    """All states by tap, and the taps of files that can't be read."""
    states, broken = {}, []
    for tap in _list_taps(run):
        state = read_state(tap, run)
        if state is None or state.nic.tap != tap:
            broken.append(tap)
        else:
            states[tap] = state
    return states, broken


def remove_state(tap: str, run: Path = RUN) -> None:
    state = read_state(tap, run)
    path = _find_path(tap, run)
    Path(path).unlink(missing_ok=True)
    _parsed.pop(path, None)
    for claim in _find_claims(state.nic, run) if state else ():
        if _read_claim(claim) == tap:
            claim.unlink(missing_ok=True)


def check_claims(nic: Nic, run: Path = RUN) -> None:
    """Refuse an address that another NIC has, here and now. Raises InputError."""
    for claim in _find_claims(nic, run):
        owner = _read_claim(claim)
        if owner and owner != nic.tap:
            state = read_state(owner, run)
            if state and state.is_live and claim in _find_claims(state.nic, run):
                address = claim.name.partition(",")[2]
                raise InputError(
                    f"NIC {nic.index} of {nic.instance}: {state.nic.instance} has"
                    f" {address} already, on {owner}"
                )


def find_lost_addresses(nic: Nic, run: Path = RUN) -> set[str]:
    """Those of a NIC's addresses that another one has claimed since."""
    owners = {claim: _read_claim(claim) for claim in _find_claims(nic, run)}
    return {
        claim.name.partition(",")[2]
        for claim, owner in owners.items()
        if owner not in ("", nic.tap)
    }


def parse_state(path: str) -> NicState:
    """Raises OSError, ValueError, KeyError, TypeError, InputError."""
    status = os.stat(path)  # noqa: PTH116 (see _parsed)
    stamp = status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
    known = _parsed.get(path)
    if known is None or known[0] != stamp:
        with open(path, "rb") as file:
            known = stamp, _parse_document(json.loads(file.read(_SIZE_LIMIT)))
        _parsed[path] = known
    return known[1]


def _parse_document(document: Mapping[str, Any]) -> NicState:
    environ = {str(name): str(value) for name, value in document["environ"].items()}
    return NicState(
        nic=parse_nic(environ),
        environ=environ,
        ifindex=int(document["ifindex"]),
        created=float(document["created"]),
        tags_known=bool(document["tags_known"]),
    )


def write_file(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, mode), "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _find_path(tap: str, run: Path) -> str:
    return f"{run}/nics/{tap}{_SUFFIX}"


def _list_taps(run: Path) -> list[str]:
    """The taps that have files, sorted."""
    try:
        names = os.listdir(run / "nics")
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def _find_claims(nic: Nic, run: Path) -> list[Path]:
    if nic.kind is Kind.ROUTED:
        scope = f"table {nic.link or 'main'}"
    else:
        scope = f"{nic.link} {nic.mac_prefix if nic.kind is Kind.PRIVATE else ''} {nic.vlan}"
    return [run / "claims" / f"{scope},{address}" for address in find_addresses(nic)]


def _read_claim(path: Path) -> str:
    try:
        return path.read_text()[:15]
    except OSError:
        return ""
