"""The registry of sessions in Redis.

Each session has a key with its facts and its holder: the owner, which is the proxy that carries
it, and a mark, since a session may be resumed where it was. It is a member of three sorted sets:
of all, of its user, of its instance. The owner renews them all the time, and what it does not
renew expires: of a proxy that died nothing is left after `LEASE_SECONDS`. One that was cut off
from Redis registers its sessions again.

What is asked of a session goes to its owner through a list, which is read as it fills, and the
answer comes back through another.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
from typing import Any

from snf_ganeti.errors import InputError, NodeError, SnfError
from vncauthproxy import settings
from vncauthproxy.session import REPLACED, Session, Sessions, explain_limit
from vncauthproxy.stores.redis_client import PREFIX, asked
from vncauthproxy.stores.registry import Facts, Obey
from vncauthproxy.stores.ticket_stores import make_live_key
from vncauthproxy.tickets import make_used

LEASE_SECONDS = 15.0
RENEW_SECONDS = 3.0
_WAIT_SECONDS = 3
_LISTEN_SECONDS = 2
_RETRY_SECONDS = 1.0
_WORD_SIZE = 8

# KEYS: the session, all sessions, those of its user, those of its instance, its live ticket.
# ARGV: the session's id, its holder here, and what a script says. Scores are the times of expiry.
_HOLD = """
local function hold(lease, facts)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'facts', facts)
  redis.call('PEXPIRE', KEYS[1], lease)
  for at = 2, 4 do
    redis.call('ZREMRANGEBYSCORE', KEYS[at], '-inf', now)
    redis.call('ZADD', KEYS[at], now + lease, ARGV[1])
    redis.call('PEXPIRE', KEYS[at], lease)
  end
end
"""
# lease, facts, limit of a user, limit of an instance, ticket. Gives a refusal, and who had it.
_ADMIT = (
    _HOLD
    + """
if ARGV[7] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[7] then return {'used', ''} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for at, of in pairs({[3] = 'user', [4] = 'instance'}) do
  local others = redis.call('ZCOUNT', KEYS[at], '(' .. now, '+inf')
  local here = redis.call('ZSCORE', KEYS[at], ARGV[1])
  if not here and others >= tonumber(ARGV[at + 2]) then return {of, ''} end
end
local before = redis.call('HGET', KEYS[1], 'holder') or ''
redis.call('DEL', KEYS[5])
hold(tonumber(ARGV[3]), ARGV[4])
return {'', before}
"""
)
# lease, facts. Tells whether it is still this proxy's.
_RENEW = (
    _HOLD
    + """
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[2] then return 0 end
hold(tonumber(ARGV[3]), ARGV[4])
return 1
"""
)
# Milliseconds in which it can be resumed.
_LEAVE = """
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[2] then return end
redis.call('DEL', KEYS[1])
for at = 2, 4 do redis.call('ZREM', KEYS[at], ARGV[1]) end
if redis.call('PTTL', KEYS[5]) > tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[5], ARGV[3])
end
"""

log = logging.getLogger(__name__)


class RedisRegistry:
    """name: of this proxy, shown with its sessions."""

    def __init__(self, client: Any, limits: settings.Limits, name: str) -> None:
        self._redis = client
        self._limits = limits
        self._name = name
        self._owner = f"{name}/{secrets.token_hex(_WORD_SIZE)}"
        self._admit, self._renew, self._leave = map(
            client.register_script, (_ADMIT, _RENEW, _LEAVE)
        )
        self._turn = asyncio.Lock()
        """So that what was renewed a moment ago is not renewed after its end."""

    async def admit(self, session: Session, *, ticket: bool) -> None:
        refusal, before = await self._take_place(session, ticket)
        if refusal == "used":
            raise make_used()
        if refusal:
            reason = explain_limit("user" if refusal == "user" else "instance", session.grant)
            raise InputError(reason, hint="close one of them and try again")
        owner = _find_owner(before)
        if owner not in ("", self._owner):
            with contextlib.suppress(SnfError):  # it notices by itself, a little later
                await self._send(owner, {"session": session.id, "replaced": True})

    @asked
    async def _take_place(self, session: Session, ticket: bool) -> tuple[str, str]:
        limits = (self._limits.sessions_per_user, self._limits.sessions_per_instance)
        values = (*self._make_values(session), *limits, session.grant.uid if ticket else "")
        refusal, before = await self._admit(_make_keys(session), values)
        return refusal.decode(), before.decode()

    def _make_values(self, session: Session) -> tuple[str, str, int, str]:
        facts = {**session.facts, "proxy": self._name}
        lease = int(LEASE_SECONDS * 1000)
        return session.id, self._make_holder(session), lease, json.dumps(facts)

    def _make_holder(self, session: Session) -> str:
        return f"{self._owner}/{session.mark}"

    async def leave(self, session: Session, grace: float) -> None:
        async with self._turn:
            await self._give_up_place(session, grace)

    @asked
    async def _give_up_place(self, session: Session, grace: float) -> None:
        values = (session.id, self._make_holder(session), int(grace * 1000))
        await self._leave(_make_keys(session), values)

    @asked
    async def find_others(self) -> list[Facts]:
        ids = await self._redis.zrange(_ALL, 0, -1)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for each in ids:
                pipeline.hmget(_make_session_key(each.decode()), "holder", "facts")
            found = await pipeline.execute() if ids else []
        held = [(holder.decode(), facts) for holder, facts in found if holder]
        return [json.loads(facts) for holder, facts in held if _find_owner(holder) != self._owner]

    async def ask(self, session: str, command: dict[str, Any]) -> Facts | None:
        owner = _find_owner(await self._read_holder(session))
        if owner in ("", self._owner):
            return None
        key = f"{PREFIX}answer:{secrets.token_hex(_WORD_SIZE)}"
        await self._send(owner, {"session": session, "answer": key, **command})
        answer = await self._pop(key, _WAIT_SECONDS)
        if answer is None:
            name = owner.partition("/")[0]
            raise NodeError(f"the proxy {name}, which has session {session}, does not answer")
        facts: Facts | None = json.loads(answer)
        return facts

    @asked
    async def _read_holder(self, session: str) -> str:
        holder = await self._redis.hget(_make_session_key(session), "holder")
        return bytes(holder or b"").decode()

    async def _send(self, owner: str, command: dict[str, Any]) -> None:
        await self._push(_make_list_key(owner), json.dumps(command))

    @asked
    async def _push(self, key: str, value: str) -> None:
        """To a list, which nobody may ever read."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.rpush(key, value)
            pipeline.pexpire(key, int(LEASE_SECONDS * 1000))
            await pipeline.execute()

    @asked
    async def _pop(self, key: str, seconds: int) -> bytes | None:
        popped = await self._redis.blpop(key, timeout=seconds)
        return bytes(popped[1]) if popped else None

    async def attend(self, sessions: Sessions, obey: Obey) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_renewing(sessions))
            group.create_task(self._listen(obey))

    async def _keep_renewing(self, sessions: Sessions) -> None:
        reached = True
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with self._turn:
                    await self._renew_all(list(sessions.running.values()))
            except NodeError as error:
                if reached:
                    log.warning("sessions are not known to other proxies: %s", error)
                reached = False
            else:
                reached = True

    @asked
    async def _renew_all(self, running: list[Session]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for session in running:
                await self._renew(_make_keys(session), self._make_values(session), client=pipeline)
            kept = await pipeline.execute() if running else []
        for session, ours in zip(running, kept, strict=True):
            if not ours:
                session.stop(REPLACED)

    async def _listen(self, obey: Obey) -> None:
        while True:
            try:
                command = await self._pop(_make_list_key(self._owner), _LISTEN_SECONDS)
                if command:
                    await self._answer(json.loads(command), obey)
            except SnfError:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _answer(self, command: dict[str, Any], obey: Obey) -> None:
        key = command.pop("answer", None)
        facts = await obey(command.pop("session"), command)
        if key:
            await self._push(key, json.dumps(facts))

    async def close(self) -> None:
        with contextlib.suppress(NodeError):
            await self._disconnect()

    @asked
    async def _disconnect(self) -> None:
        await self._redis.connection_pool.disconnect()


_ALL = f"{PREFIX}sessions"


def _find_owner(holder: str) -> str:
    return holder.rpartition("/")[0]


def _make_session_key(session: str) -> str:
    return f"{PREFIX}session:{session}"


def _make_list_key(owner: str) -> str:
    return f"{PREFIX}to:{owner}"


def _make_keys(session: Session) -> tuple[str, ...]:
    user, target = session.grant.user, str(session.grant.target)
    return (
        _make_session_key(session.id),
        _ALL,
        f"{_ALL}:user:{_hash(user)}",
        f"{_ALL}:instance:{_hash(target)}",
        make_live_key(session.id),
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
