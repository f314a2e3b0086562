"""Tickets: what opens one session, once, within a time.

A ticket is a random word that only its holder knows. It has two handles, and each finds it: the
word itself, and what VNC authentication makes of its first eight characters, for viewers that
can do no better. A store never sees a handle, only its hash; and what a ticket opens is kept
encrypted with a key made of the handle. Who reads the store can open nothing.

The viewers' handle is the answer to a challenge that the store keeps and that is the same for
all: VNC authentication gets no other way to be looked up instead of tried. It is asked inside
TLS only, where nobody sees an answer to send it again.
"""

import hashlib
import json
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from snf_ganeti.errors import InputError
from vncauthproxy.instances.targets import Target, parse_target
from vncauthproxy.protocol.vnc_auth import make_response

_NONCE_SIZE = 12
HANDLE_LIMIT = 256


@dataclass(frozen=True)
class Grant:
    """What a ticket opens.

    session: the session's id, which is no secret. origin: of the page, empty for the proxy's
    own. address: the client's, empty for any. until: when the session ends at the latest
    (seconds since the epoch). password: of the instance's VNC server.
    """

    session: str
    user: str
    name: str
    target: Target
    view_only: bool = False
    clipboard: bool = True
    origin: str = ""
    address: str = ""
    until: float = 0.0
    resumed: int = 0
    password: str = field(default="", repr=False)

    @property
    def uid(self) -> str:
        """Names one ticket of this session in a store."""
        return f"{self.session}.{self.resumed}"


def find_session(uid: str) -> str:
    """The session whose ticket a uid names."""
    return uid.partition(".")[0]


@dataclass(frozen=True)
class Entry:
    """What a store keeps under a handle's name. live: nobody took it."""

    uid: str
    sealed: bytes
    live: bool


class Store(Protocol):
    """Where tickets are. Of a session the last one that was put is good, and no other.

    revoke: tells whether the session had a good one.
    """

    async def challenge(self) -> bytes: ...
    async def put(self, uid: str, entries: dict[str, bytes], lifetime: float) -> None: ...
    async def find(self, name: str) -> Entry | None: ...
    async def revoke(self, session: str) -> bool: ...


class TicketRefused(InputError):
    """A ticket that opens nothing: used, expired, unknown, or for somebody else."""


def make_session_id() -> str:
    return secrets.token_hex(8)


async def issue(store: Store, grant: Grant, lifetime: float) -> str:
    """A new ticket for a grant; it is nowhere but in what this gives."""
    ticket = secrets.token_urlsafe(32)
    response = make_response(ticket.encode(), await store.challenge())
    handles = (ticket.encode(), response)
    document = json.dumps(asdict(grant)).encode()
    entries = {_name(handle): _seal(handle, document) for handle in handles}
    await store.put(grant.uid, entries, lifetime)
    return ticket


async def find(store: Store, handle: bytes) -> Grant:
    """What a ticket would open; it can still be taken after this. Raises TicketRefused."""
    entry = await store.find(_name(handle)) if len(handle) <= HANDLE_LIMIT else None
    grant = _unseal(handle, entry.sealed) if entry else None
    if entry is None or grant is None:
        raise TicketRefused("this link has expired or is not valid", hint="ask for a new one")
    if not entry.live:
        raise make_used()
    return grant


def make_used() -> TicketRefused:
    """For all who take a ticket but the first."""
    return TicketRefused("this link was used already", hint="ask for a new one")


async def reissue(store: Store, grant: Grant) -> tuple[Grant, str]:
    """A ticket that goes on with the session of a grant, until that session's end."""
    again = replace(grant, resumed=grant.resumed + 1)
    return again, await issue(store, again, max(1.0, grant.until - time.time()))


def _name(handle: bytes) -> str:
    return hashlib.sha256(b"vncauthproxy name\0" + handle).hexdigest()


def _key(handle: bytes) -> AESGCM:
    return AESGCM(hashlib.sha256(b"vncauthproxy key\0" + handle).digest())


def _seal(handle: bytes, document: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_SIZE)
    return nonce + _key(handle).encrypt(nonce, document, None)


def _unseal(handle: bytes, sealed: bytes) -> Grant | None:
    try:
        document = _key(handle).decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], None)
    except InvalidTag:
        return None
    fields: dict[str, Any] = json.loads(document)
    fields["target"] = parse_target(fields["target"])
    return Grant(**fields)
