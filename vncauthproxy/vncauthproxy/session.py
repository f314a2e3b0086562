"""One session: a client on one side, an instance's VNC server on the other, and its rules."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from snf_ganeti.errors import InputError, SnfError
from vncauthproxy import settings
from vncauthproxy.connections.stream import HungUp, Stream
from vncauthproxy.protocol.client_messages import ClientMessages
from vncauthproxy.tickets import Grant

Kind = Literal["browser", "viewer", "legacy"]
SCREEN_CHUNK = (1 << 18) - 10
"""Bytes of a screen that are carried at once: with the head of a WebSocket's frame they fill
records of TLS, and none goes out for the ten bytes that are left."""


@dataclass(frozen=True)
class End:
    """Why a session ended. resumable: the client may come back for it; code: of WebSocket."""

    reason: str
    code: int = 1000
    resumable: bool = False


CLIENT_LEFT = End("the client left", resumable=True)
INSTANCE_LEFT = End("the instance closed its console", 4002, resumable=True)
IDLE = End("nobody used the console for too long", 4004)
TIME_IS_UP = End("the session's time is up", 4004)
STALLED = End("the client did not take what was sent", 4004, resumable=True)
CONTROLLER = End("the controller ended the session", 4003)
REPLACED = End("the session goes on in another window", 4003)
SHUTDOWN = End("the proxy shuts down", 1012, resumable=True)


def format_time(seconds: float) -> str:
    """Seconds since the epoch, as people and JSON have them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class Client(Protocol):
    """A browser or a viewer; what it reads and writes is RFB."""

    stream: Stream

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    async def ping(self) -> None: ...
    async def tell(self, **facts: object) -> None: ...


class Viewer:
    """A client that speaks RFB and nothing around it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.read = stream.read
        self.write = stream.write

    async def ping(self) -> None:
        """RFB has none; TCP's keepalive finds out who is gone."""

    async def tell(self, **facts: object) -> None:
        """A viewer has nowhere to show anything."""


@dataclass
class Session:
    """From the time when its ticket was taken. address: the client's. mark: tells it from
    another that it resumes, or that resumes it; they have one id."""

    grant: Grant
    kind: Kind
    address: str
    messages: ClientMessages
    mark: str = field(default_factory=lambda: secrets.token_hex(4))
    clock: float = field(default_factory=time.monotonic)
    started: float = field(default_factory=time.time)
    client: Client | None = None
    backend: Stream | None = None
    end: End | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _used: float = field(default_factory=time.monotonic, repr=False)
    _inputs: int = 0

    @property
    def id(self) -> str:
        return self.grant.session

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.clock

    @property
    def facts(self) -> dict[str, Any]:
        """What operators see of it. bytes_in: from the client; bytes_out: to it; both on the
        wire, of TLS without its frames."""
        stream = self.client.stream if self.client else None
        return {
            "session": self.id,
            "kind": self.kind,
            "user": self.grant.user,
            "instance": self.grant.name,
            "from": self.address,
            "view_only": self.messages.view_only,
            "started": format_time(self.started),
            "seconds": round(self.seconds, 3),
            "bytes_in": stream.bytes_in if stream else 0,
            "bytes_out": stream.bytes_out if stream else 0,
        }

    def stop(self, end: End) -> None:
        """End it, from anywhere; the first reason counts."""
        self.end = self.end or end
        self._ended.set()

    async def relay(self, client: Client, backend: Stream, early: bytes) -> End:
        """Carry bytes both ways until one side leaves or `stop` is called.

        early: what the client sent with the end of its handshake.
        """
        self.client, self.backend = client, backend
        await self._pass_up(early)
        tasks = [
            asyncio.create_task(self._carry_up(client)),
            asyncio.create_task(self._carry_down(client, backend)),
            asyncio.create_task(self._ended.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert self.end
        return self.end

    async def _carry_up(self, client: Client) -> None:
        try:
            while data := await client.read():
                await self._pass_up(data)
        except HungUp:
            pass
        except SnfError as error:
            self.stop(End(str(error), 4000, resumable=True))
        self.stop(CLIENT_LEFT)

    async def _pass_up(self, data: bytes) -> None:
        assert self.backend
        kept = self.messages.receive(data)
        if self.messages.inputs != self._inputs or self.messages.view_only:
            self._inputs, self._used = self.messages.inputs, time.monotonic()
        if kept:
            try:
                await self.backend.write(kept)
            except HungUp:
                self.stop(INSTANCE_LEFT)

    async def _carry_down(self, client: Client, backend: Stream) -> None:
        try:
            while data := await backend.read(SCREEN_CHUNK):
                await client.write(data)
        except HungUp:
            self.stop(CLIENT_LEFT)
        except SnfError as error:
            self.stop(End(str(error), 4000, resumable=True))
        self.stop(INSTANCE_LEFT)

    def check(self, limits: settings.Limits, now: float) -> None:
        """Stop it when it has come to a limit. now: the monotonic clock."""
        if self.grant.until and time.time() >= self.grant.until:
            self.stop(TIME_IS_UP)
        elif limits.idle and now - self._used > limits.idle:
            self.stop(IDLE)
        for stream in (self.client.stream if self.client else None, self.backend):
            since = stream.writing_since if stream else None
            if since is not None and now - since > limits.stalled:
                self.stop(STALLED)


def explain_limit(of: Literal["user", "instance"], grant: Grant) -> str:
    """The reason for whom there is no further session."""
    if of == "user":
        return f"user {grant.user} has too many consoles open"
    return f"too many consoles of {grant.name} are open"


class Sessions:
    """The sessions of this proxy, and how many there may be."""

    def __init__(self, limits: settings.Limits) -> None:
        self.limits = limits
        self.running: dict[str, Session] = {}
        self.draining = False
        self._arriving = 0

    @contextlib.contextmanager
    def arriving(self, grant: Grant) -> Iterator[None]:
        """While a session is on its way in. Raises InputError at a limit."""
        refusal = self.find_limit(grant)
        if refusal:
            raise InputError(refusal, hint="close one of them and try again")
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    def add(self, session: Session) -> None:
        """It is let in, in place of one that it resumes."""
        old = self.running.pop(session.id, None)
        if old:
            old.stop(REPLACED)
        self.running[session.id] = session

    def find_limit(self, grant: Grant) -> str:
        """The limit that a further session would break, or nothing; one to resume has its place."""
        if self.draining:
            return "this proxy is shutting down"
        if grant.session in self.running:
            return ""
        if len(self.running) + self._arriving >= self.limits.sessions:
            return "too many consoles are open here"
        if self._count(lambda other: other.user == grant.user) >= self.limits.sessions_per_user:
            return explain_limit("user", grant)
        same = self._count(lambda other: other.target == grant.target)
        if same >= self.limits.sessions_per_instance:
            return explain_limit("instance", grant)
        return ""

    def _count(self, matches: Callable[[Grant], bool]) -> int:
        return sum(1 for session in self.running.values() if matches(session.grant))

    def forget(self, session: Session) -> bool:
        """It ended; tells whether no other took its place."""
        if self.running.get(session.id) is not session:
            return False
        del self.running[session.id]
        return True

    def check(self) -> None:
        now = time.monotonic()
        for session in list(self.running.values()):
            session.check(self.limits, now)
