"""What all connections of a proxy share: its parts, and the life of a session from a ticket on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from snf_ganeti.errors import SnfError
from vncauthproxy import audit, tickets
from vncauthproxy.controllers import Controllers
from vncauthproxy.instances.backend import Backend, Instances
from vncauthproxy.instances.targets import parse_address
from vncauthproxy.metrics import Metrics
from vncauthproxy.page import Page
from vncauthproxy.protocol.client_messages import ClientMessages
from vncauthproxy.session import CONTROLLER, REPLACED, Kind, Session, Sessions
from vncauthproxy.settings import Settings
from vncauthproxy.stores.registry import Registry
from vncauthproxy.tickets import Grant, Store, TicketRefused

RESUME_SECONDS = 60.0
"""How long a session may be gone before nobody can resume it."""
PING_SECONDS = 25.0
_SWEEP_SECONDS = 1.0
_TELL_SECONDS = 0.5
_CLOSE_SECONDS = 2.0


@dataclass
class Proxy:
    """name: of this one among those that share tickets and sessions."""

    name: str
    settings: Settings
    store: Store
    registry: Registry
    sessions: Sessions
    instances: Instances
    controllers: Controllers
    page: Page
    metrics: Metrics = field(default_factory=Metrics)
    _gone: dict[str, tuple[Session, float]] = field(default_factory=dict)
    _attempts: set[asyncio.Task[None]] = field(default_factory=set)

    async def redeem(self, handle: bytes, kind: Kind, address: str, origin: str = "") -> Session:
        """Use up a ticket, of all reasons against it the cheapest first: nothing is used up by
        who may not use it. Raises TicketRefused, InputError, NodeError."""
        try:
            grant = await tickets.find(self.store, handle)
            self._check_bounds(grant, address, origin)
            grant = replace(grant, until=grant.until or self.make_end())
            return await self.admit(grant, kind, address, ticket=True)
        except SnfError as error:
            self.refuse(kind, address, str(error))
            raise

    async def admit(self, grant: Grant, kind: Kind, address: str, *, ticket: bool) -> Session:
        """A new session, in place of one that it resumes; ticket: whether it has one, which is
        used up then. Raises TicketRefused, InputError, NodeError."""
        with self.sessions.arriving(grant):
            messages = ClientMessages(view_only=grant.view_only, clipboard=grant.clipboard)
            session = Session(grant, kind, address, messages)
            await self.registry.admit(session, ticket=ticket)
            self._gone.pop(session.id, None)
            self.sessions.add(session)
        return session

    def _check_bounds(self, grant: Grant, address: str, origin: str) -> None:
        if origin and origin != (grant.origin or self.settings.public_url):
            raise TicketRefused("this link may not be opened from another site's page")
        if grant.address and parse_address(grant.address) != parse_address(address):
            raise TicketRefused("this link is for another address than yours")

    def make_end(self) -> float:
        return time.time() + self.settings.limits.session

    def refuse(self, kind: str, address: str, reason: str) -> None:
        self.metrics.refused.labels(kind).inc()
        audit.write_refusal(kind, address, reason)

    async def open_backend(self, session: Session) -> Backend:
        return await self.instances.open(session.grant.target, session.grant.password)

    @contextlib.asynccontextmanager
    async def counted(self, session: Session) -> AsyncIterator[None]:
        """From its admission to its end, however that comes. Its place is free when this is left,
        and so before the client is told, unless Redis takes its time."""
        self.metrics.sessions.labels(session.kind).inc()
        try:
            yield
        finally:
            if self.sessions.forget(session):
                resumable = bool(session.end and session.end.resumable)
                seconds = RESUME_SECONDS if resumable else 0.0
                self._gone[session.id] = (session, time.monotonic() + seconds)
            self.metrics.sessions.labels(session.kind).dec()
            self.metrics.ended.labels(session.kind).inc()
            self.metrics.seconds.observe(session.seconds)
            for direction in ("in", "out"):
                self.metrics.bytes.labels(direction).inc(session.facts[f"bytes_{direction}"])
            audit.write_session(session)
            await self._attempt(self._leave(session))

    async def _leave(self, session: Session) -> None:
        """Tell the others that it ended. What fails, when Redis does, is tried again later."""
        gone = self._gone.get(session.id)
        if gone and gone[0] is session:
            await self.registry.leave(session, max(0.0, gone[1] - time.monotonic()))
            self._gone.pop(session.id, None)

    def show(self, session: Session) -> dict[str, Any]:
        """What a controller sees of one of this proxy's sessions."""
        return {**session.facts, "proxy": self.name}

    async def find_sessions(self) -> list[dict[str, Any]]:
        """Those of all proxies. Raises NodeError."""
        others = await self.registry.find_others()
        return [self.show(session) for session in self.sessions.running.values()] + others

    async def end_session(self, session_id: str) -> bool:
        """End a session wherever it is, and make its ticket worthless, be it unused or one to
        resume with; tells whether there was any of these. Raises NodeError."""
        try:
            revoked = await self.store.revoke(session_id)
        except SnfError:
            await self.obey(session_id, {"end": True})  # what is here ends all the same
            raise
        return await self.change(session_id, {"end": True}) is not None or revoked

    async def change(self, session_id: str, command: dict[str, Any]) -> dict[str, Any] | None:
        """Do what `Registry.ask` describes, wherever the session is. Raises NodeError.

        It may be here and go on elsewhere by now, before this proxy was told.
        """
        here = await self.obey(session_id, command)
        return await self.registry.ask(session_id, command) or here

    async def obey(self, session_id: str, command: dict[str, Any]) -> dict[str, Any] | None:
        """Do something to one of this proxy's sessions; None when it is not here any more."""
        session = self.sessions.running.get(session_id)
        if session is None:
            return None
        if command.get("end"):
            session.stop(CONTROLLER)
        if command.get("replaced"):
            session.stop(REPLACED)
        if "view_only" in command:
            await self._set_view_only(session, bool(command["view_only"]))
        return self.show(session)

    async def _set_view_only(self, session: Session, view_only: bool) -> None:
        """At once, and for whoever resumes it: the ticket to resume with is another one then."""
        session.messages.view_only = view_only
        again = session.grant.resumed + 1
        session.grant = replace(session.grant, view_only=view_only, resumed=again)
        if session.kind == "browser" and session.client:
            _, resume = await tickets.reissue(self.store, session.grant)
            await self._attempt(session.client.tell(view_only=view_only, resume=resume))

    async def sweep(self) -> None:
        """Keep the time: limits, pings, and ends that the others don't know yet; for ever."""
        pinged = time.monotonic()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.sessions.check()
            now = time.monotonic()
            if now - pinged > PING_SECONDS:
                pinged = now
                await self._ping()
            for session, _ in list(self._gone.values()):
                with contextlib.suppress(SnfError):
                    await self._leave(session)

    async def close(self) -> None:
        """Tell the others of the last sessions' ends, and no more."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=_CLOSE_SECONDS)
        await self.registry.close()

    async def _ping(self) -> None:
        clients = [session.client for session in self.sessions.running.values() if session.client]
        for client in clients:
            if not client.stream.is_writing:
                await self._attempt(client.ping())

    async def _attempt(self, work: Coroutine[Any, Any, None]) -> None:
        """Send something, and don't wait long. It is not cancelled: half of a message sent would
        spoil those that follow. What never gets through is found by the session's limits."""
        await asyncio.wait({self._start(work)}, timeout=_TELL_SECONDS)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._attempts.add(task)
        task.add_done_callback(self._forget_attempt)
        return task

    def _forget_attempt(self, task: asyncio.Task[None]) -> None:
        self._attempts.discard(task)
        if not task.cancelled():
            task.exception()  # a session ends of it, and says so; or it is tried again
