"""`snf-ganeti-eventd check`: can this node publish, and if not, why."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from snf_ganeti.errors import SnfError
from snf_ganeti_eventd import ssconf
from snf_ganeti_eventd.jobs.job_queue import JobQueue
from snf_ganeti_eventd.messages.instance import Query
from snf_ganeti_eventd.settings import Settings
from snf_ganeti_eventd.transport import make_transport


@dataclass(frozen=True)
class Check:
    """ok: None when it does not apply here."""

    name: str
    ok: bool | None
    detail: str


def find_checks(settings: Settings, query: Query) -> Iterator[Check]:
    """One at a time, in the order in which a site would mend them."""
    role = ssconf.read_role(settings.ganeti_dir)
    yield Check("cluster", bool(role.cluster), role.cluster or "this node is in no cluster")
    yield _try("queue", lambda: f"{len(JobQueue(settings.ganeti_dir).list_live())} jobs")
    yield _try("transport", lambda: asyncio.run(_reach(settings)))
    if role.is_master:
        yield _try("luxi", lambda: "answers" if query([role.cluster]) is not None else "")
    else:
        yield Check("luxi", None, "this node is not the master")


def run(settings: Settings, query: Query, *, as_json: bool) -> int:
    """Print the checks; the status is 1 when one failed."""
    checks = list(find_checks(settings, query))
    words = {True: "ok", False: "FAILED", None: "-"}
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}))
    else:
        for check in checks:
            print(f"{check.name:<10} {words[check.ok]:<7} {check.detail}")
    return 1 if any(check.ok is False for check in checks) else 0


def _try(name: str, probe: Callable[[], str]) -> Check:
    try:
        return Check(name, True, probe())
    except SnfError as error:
        return Check(name, False, str(error))


async def _reach(settings: Settings) -> str:
    transport = make_transport(settings)
    await transport.open()
    try:
        return transport.address
    finally:
        await transport.close()
