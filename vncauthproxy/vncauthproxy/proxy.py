"""What all connections of a proxy share: its parts, and the life of a session from a ticket on."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from snf_ganeti.errors import InputError, SnfError
from vncauthproxy import audit, tickets
from vncauthproxy.backend import Backend, Instances
from vncauthproxy.controllers import Controllers
from vncauthproxy.metrics import Metrics
from vncauthproxy.page import Page
from vncauthproxy.session import Kind, Session, Sessions
from vncauthproxy.settings import Settings
from vncauthproxy.targets import parse_address
from vncauthproxy.tickets import Grant, Store, TicketRefused

RESUME_SECONDS = 60.0
"""How long a session may be gone before nobody can resume it."""
PING_SECONDS = 25.0
_SWEEP_SECONDS = 1.0
_TELL_SECONDS = 0.5


@dataclass
class Proxy:
    settings: Settings
    store: Store
    sessions: Sessions
    instances: Instances
    controllers: Controllers
    page: Page
    metrics: Metrics = field(default_factory=Metrics)
    _gone: dict[str, tuple[Grant, float]] = field(default_factory=dict)
    _attempts: set[asyncio.Task[None]] = field(default_factory=set)

    async def redeem(self, handle: bytes, kind: Kind, address: str, origin: str = "") -> Session:
        """Use up a ticket, of all reasons against it the cheapest first: nothing is used up by
        who may not use it. Raises TicketRefused, InputError, NodeError."""
        try:
            grant = await tickets.find(self.store, handle)
            self._check_bounds(grant, address, origin)
            refusal = "" if grant.resumed else self.sessions.find_limit(grant)
            if refusal:
                raise InputError(refusal, hint="close one of them and try again")
            await tickets.take(self.store, grant)
            grant = replace(grant, until=grant.until or self._make_end())
            return self.sessions.admit(grant, kind, address)
        except SnfError as error:
            self.refuse(kind, address, str(error))
            raise

    def _check_bounds(self, grant: Grant, address: str, origin: str) -> None:
        if origin and origin != (grant.origin or self.settings.public_url):
            raise TicketRefused("this link may not be opened from another site's page")
        if grant.address and parse_address(grant.address) != parse_address(address):
            raise TicketRefused("this link is for another address than yours")

    def _make_end(self) -> float:
        return time.time() + self.settings.limits.session

    def refuse(self, kind: str, address: str, reason: str) -> None:
        self.metrics.refused.labels(kind).inc()
        audit.write_refusal(kind, address, reason)

    async def open_backend(self, session: Session) -> Backend:
        return await self.instances.open(session.grant.target, session.grant.password)

    @contextlib.contextmanager
    def counted(self, session: Session) -> Iterator[None]:
        """From its admission to its end, however that comes."""
        self.metrics.sessions.labels(session.kind).inc()
        try:
            yield
        finally:
            last = self.sessions.forget(session)
            if last:
                resumable = bool(session.end and session.end.resumable)
                seconds = RESUME_SECONDS if resumable else 0.0
                self._gone[session.id] = (session.grant, time.monotonic() + seconds)
            self.metrics.sessions.labels(session.kind).dec()
            self.metrics.ended.labels(session.kind).inc()
            self.metrics.seconds.observe(session.seconds)
            line = audit.make_line(session)
            for direction in ("in", "out"):
                self.metrics.bytes.labels(direction).inc(line[f"bytes_{direction}"])
            audit.write_session(session)

    async def set_view_only(self, session: Session, view_only: bool) -> None:
        """At once, and for whoever resumes it: the ticket to resume with is another one then."""
        session.messages.view_only = view_only
        await self.store.take(replace(session.grant, resumed=session.grant.resumed + 1).uid)
        again = session.grant.resumed + 1
        session.grant = replace(session.grant, view_only=view_only, resumed=again)
        if session.kind == "browser" and session.client:
            _, resume = await tickets.reissue(self.store, session.grant)
            await self._attempt(session.client.tell(view_only=view_only, resume=resume))

    async def revoke(self, session_id: str) -> bool:
        """Make a session's ticket worthless, be it unused or one to resume with."""
        running = self.sessions.running.get(session_id)
        gone = self._gone.pop(session_id, None)
        grant = running.grant if running else gone[0] if gone else None
        uids = [f"{session_id}.0"] if grant is None else [f"{session_id}.{grant.resumed + 1}"]
        taken = [await self.store.take(uid) for uid in uids]
        return any(taken)

    async def sweep(self) -> None:
        """Keep the time: limits, pings, and tickets that can't be used any more; for ever."""
        pinged = time.monotonic()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.sessions.check()
            now = time.monotonic()
            if now - pinged > PING_SECONDS:
                pinged = now
                await self._ping()
            for session_id in [key for key, (_, until) in self._gone.items() if until <= now]:
                with contextlib.suppress(SnfError):
                    await self.revoke(session_id)

    async def _ping(self) -> None:
        clients = [session.client for session in self.sessions.running.values() if session.client]
        for client in clients:
            if not client.stream.is_writing:
                await self._attempt(client.ping())

    async def _attempt(self, work: Coroutine[Any, Any, None]) -> None:
        """Send something, and don't wait long. It is not cancelled: half of a message sent would
        spoil those that follow. What never gets through is found by the session's limits."""
        task = asyncio.create_task(work)
        self._attempts.add(task)
        task.add_done_callback(self._forget_attempt)
        await asyncio.wait({task}, timeout=_TELL_SECONDS)

    def _forget_attempt(self, task: asyncio.Task[None]) -> None:
        self._attempts.discard(task)
        if not task.cancelled():
            task.exception()  # the session ends of it, and says so
