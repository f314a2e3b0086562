"""`vncauthproxy check`: whether this machine can serve consoles, and if not, why."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from snf_ganeti.errors import NodeError, SnfError
from vncauthproxy import controllers
from vncauthproxy.entrances.front import make_server_context
from vncauthproxy.instances import backend, rapi
from vncauthproxy.page import Page
from vncauthproxy.settings import Settings
from vncauthproxy.stores.shared import open_shared
from vncauthproxy.users import read_users

_SOON_DAYS = 14


@dataclass(frozen=True)
class Finding:
    """level: "ok", "warning" (it works, but), "error" (it does not)."""

    subject: str
    level: str
    text: str


def run(chosen: Settings, *, as_json: bool) -> int:
    findings = list(find(chosen))
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        status = "error" if failed else "ok"
        print(json.dumps({"status": status, "findings": [asdict(each) for each in findings]}))
    else:
        for each in findings:
            print(f"{each.level:8} {each.subject}: {each.text}")
    return NodeError.exit_status if failed else 0


def find(chosen: Settings) -> Iterator[Finding]:
    for subject, look in LOOKS.items():
        try:
            yield Finding(subject, *look(chosen))
        except SnfError as error:
            yield Finding(subject, "error", str(error))


def _look_at_certificate(chosen: Settings) -> tuple[str, str]:
    make_server_context(chosen)
    certificate = x509.load_pem_x509_certificate(chosen.listen.certificate.read_bytes())
    until = certificate.not_valid_after.replace(tzinfo=UTC)
    days = (until - datetime.now(UTC)).days
    level = "error" if days < 0 else "warning" if days < _SOON_DAYS else "ok"
    return level, f"{chosen.listen.certificate} is valid until {until:%Y-%m-%d}"


def _look_at_controllers(chosen: Settings) -> tuple[str, str]:
    known = controllers.read(chosen.controllers)
    if not known.tokens and not known.names:
        return "error", f"nobody may issue tickets: {chosen.controllers.tokens} has no token"
    return "ok", f"{len(known.tokens)} tokens, {len(known.names)} certificate names"


def _look_at_page(chosen: Settings) -> tuple[str, str]:
    lack = Page(chosen.page).lack
    return ("warning", lack) if lack else ("ok", f"noVNC is in {chosen.page.novnc}")


def _look_at_store(chosen: Settings) -> tuple[str, str]:
    async def ask() -> None:
        store, registry = open_shared(chosen.tickets, chosen.limits, "check")
        try:
            await store.challenge()
        finally:
            await registry.close()

    asyncio.run(ask())
    return "ok", "in Redis, which answers" if chosen.tickets.redis else "in memory"


def _look_at_targets(chosen: Settings) -> tuple[str, str]:
    if chosen.targets.ca:
        backend.make_context(chosen.targets, False)
    elif chosen.targets.tls == "require":
        return "error", "targets.tls is require, and no targets.ca is set to check them with"
    password = chosen.targets.password_file
    if password and not _is_readable(password):
        return "error", f"{password} can't be read"
    shown = ", ".join([*chosen.targets.networks, *map(str, chosen.targets.unix_directories)])
    return "ok", f"allowed are {shown or 'none'}, ports {chosen.targets.ports}"


def _look_at_ganeti(chosen: Settings) -> tuple[str, str]:
    if not chosen.ganeti.rapi:
        return "warning", "ganeti.rapi is not set: tickets can't name instances"
    cluster = rapi.find_cluster_name(chosen.ganeti)
    return "ok", f"{chosen.ganeti.rapi} answers for {cluster}"


def _look_at_legacy(chosen: Settings) -> tuple[str, str]:
    if not chosen.legacy.enabled:
        return "ok", "off"
    users = read_users(chosen.legacy.users)
    level = "ok" if users else "error"
    return level, f"{len(users)} users in {chosen.legacy.users}"


def _is_readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


LOOKS: dict[str, Callable[[Settings], tuple[str, str]]] = {
    "certificate": _look_at_certificate,
    "controllers": _look_at_controllers,
    "page": _look_at_page,
    "tickets": _look_at_store,
    "targets": _look_at_targets,
    "Ganeti": _look_at_ganeti,
    "legacy": _look_at_legacy,
}
