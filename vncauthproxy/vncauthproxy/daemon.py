"""The proxy's life: start, reload on SIGHUP, drain on SIGTERM."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

from snf_ganeti import notify
from snf_ganeti.errors import SnfError
from snf_ganeti.event_loop import feed_watchdog, make_runner
from vncauthproxy import controllers
from vncauthproxy.entrances.front import Front
from vncauthproxy.entrances.legacy import Legacy
from vncauthproxy.entrances.listener import Acceptor, open_listener
from vncauthproxy.instances import backend
from vncauthproxy.instances.backend import Instances
from vncauthproxy.page import Page
from vncauthproxy.proxy import Proxy
from vncauthproxy.session import SHUTDOWN, Sessions
from vncauthproxy.settings import Settings
from vncauthproxy.stores.shared import open_shared

_CLOSE_SECONDS = 5.0
_POLL_SECONDS = 0.1

log = logging.getLogger(__name__)


def run(chosen: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises NodeError when it can't start."""
    with make_runner() as runner:
        runner.run(serve(chosen))


def make_proxy(chosen: Settings) -> Proxy:
    limits = chosen.limits
    name = f"{socket.gethostname()}:{chosen.listen.port}"
    store, registry = open_shared(chosen.tickets, limits, name)
    return Proxy(
        name=name,
        settings=chosen,
        store=store,
        registry=registry,
        sessions=Sessions(limits),
        instances=Instances(chosen.targets, chosen.ganeti, limits.handshake),
        controllers=controllers.read(chosen.controllers),
        page=Page(chosen.page),
    )


async def serve(chosen: Settings) -> None:
    proxy = make_proxy(chosen)
    front = Front(proxy)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload, front)
    acceptor = Acceptor(proxy)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(proxy.close)
        attending = proxy.registry.attend(proxy.sessions, proxy.obey)
        await stack.enter_async_context(_background(proxy.sweep(), attending, feed_watchdog()))
        with _listening(front, acceptor) as works:
            async with _background(*works):
                log.info("consoles at %s", chosen.public_url)
                if proxy.page.lack:
                    log.warning("%s", proxy.page.lack)
                notify.send("READY=1")
                await stop.wait()
        notify.send("STOPPING=1")
        await _drain(proxy)
        await acceptor.close(_CLOSE_SECONDS)


@contextlib.contextmanager
def _listening(front: Front, acceptor: Acceptor) -> Iterator[list[Coroutine[Any, Any, None]]]:
    """The sockets, and what accepts on them. Raises NodeError."""
    chosen = front.proxy.settings
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(open_listener(chosen.listen.address, chosen.listen.port))
        works = [acceptor.accept(listener, front.serve)]
        if chosen.legacy.enabled:
            control = open_listener(chosen.legacy.address, chosen.legacy.port)
            stack.enter_context(control)
            legacy = Legacy(front.proxy, acceptor, lambda: front.context)
            works.append(acceptor.accept(control, legacy.serve))
        yield works


@contextlib.asynccontextmanager
async def _background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.critical("this is a bug; what works in the background ended", exc_info=error)


async def _drain(proxy: Proxy) -> None:
    """Let sessions go on for a while, and no new ones begin; then end them."""
    proxy.sessions.draining = True
    seconds = proxy.settings.limits.drain
    count = len(proxy.sessions.running)
    log.info("stopping; %d sessions have %g s to end", count, seconds)
    deadline = asyncio.get_running_loop().time() + seconds
    while proxy.sessions.running and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
    for session in list(proxy.sessions.running.values()):
        session.stop(SHUTDOWN)


def reload(front: Front) -> None:
    """Take the certificates and the controllers' tokens from their files again. Sessions go on;
    what can't be read stays as it was. Settings need a restart."""
    proxy = front.proxy
    try:
        known = controllers.read(proxy.settings.controllers)
        front.load_certificates()
    except SnfError as error:
        log.error("nothing was reloaded: %s", error)
        return
    proxy.controllers = known
    backend.make_context.cache_clear()
    log.info("certificates and tokens were reloaded")
