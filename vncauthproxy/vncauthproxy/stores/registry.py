"""The sessions of all proxies behind one name: who may join them, and how they are reached."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from vncauthproxy.session import Session, Sessions
from vncauthproxy.stores.ticket_stores import MemoryStore
from vncauthproxy.tickets import make_used

Facts = dict[str, Any]
Obey = Callable[[str, dict[str, Any]], Awaitable[Facts | None]]
"""Does to a session of this proxy what another one was asked for, see `Registry.ask`."""


class Registry(Protocol):
    """Its methods raise NodeError when the others can't be reached."""

    async def admit(self, session: Session, *, ticket: bool) -> None:
        """Give it a place, and use up its ticket if it has one: both or neither.

        Raises TicketRefused for all who take a ticket but the first, InputError at a limit.
        """

    async def leave(self, session: Session, grace: float) -> None:
        """It ended here; unless it goes on elsewhere it can be resumed for `grace` seconds."""

    async def find_others(self) -> list[Facts]:
        """The sessions of the other proxies."""

    async def ask(self, session: str, command: dict[str, Any]) -> Facts | None:
        """Have the proxy that has a session do something to it: `{"end": true}` or
        `{"view_only": …}`. Gives the session as it is then; None when nobody has it."""

    async def attend(self, sessions: Sessions, obey: Obey) -> None:
        """Keep this proxy's sessions known, and do what others ask for; for ever."""

    async def close(self) -> None: ...


class LocalRegistry:
    """This proxy is the only one; its own limits are all that there are."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def admit(self, session: Session, *, ticket: bool) -> None:
        if ticket and not await self._store.take(session.grant.uid):
            raise make_used()

    async def leave(self, session: Session, grace: float) -> None:
        await self._store.shorten(session.id, grace)

    async def find_others(self) -> list[Facts]:
        return []

    async def ask(self, session: str, command: dict[str, Any]) -> Facts | None:
        return None

    async def attend(self, sessions: Sessions, obey: Obey) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass
