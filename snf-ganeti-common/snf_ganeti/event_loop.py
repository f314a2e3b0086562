"""The event loop of the services: uvloop's, several times as fast, where it is installed."""

import asyncio
import importlib
from collections.abc import Callable
from typing import cast


def make_runner() -> asyncio.Runner:
    """A context whose `run` runs a coroutine, as `asyncio.run` does."""
    return asyncio.Runner(loop_factory=_find_factory())


def _find_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        module = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop
    return cast(Callable[[], asyncio.AbstractEventLoop], module.new_event_loop)
