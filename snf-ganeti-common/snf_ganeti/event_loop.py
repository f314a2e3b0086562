"""The event loop of the services: uvloop's, several times as fast, where it is installed; and
the signs of life that it gives."""

import asyncio
import importlib
from collections.abc import Callable
from typing import cast

from snf_ganeti import notify


def make_runner() -> asyncio.Runner:
    """A context whose `run` runs a coroutine, as `asyncio.run` does."""
    return asyncio.Runner(loop_factory=_find_factory())


async def feed_watchdog() -> None:
    """Tell systemd, while the loop turns, that it does; ends at once where nobody asks."""
    interval = notify.read_watchdog()
    while interval:
        notify.send("WATCHDOG=1")
        await asyncio.sleep(interval)


def _find_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        module = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop
    return cast(Callable[[], asyncio.AbstractEventLoop], module.new_event_loop)
