"""The end of a script that would wait for ever: calls into librbd can't be interrupted."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

from snf_ganeti.errors import DeadlineError


@contextlib.contextmanager
def limited(what: str, seconds: float, say: Callable[[DeadlineError], int]) -> Iterator[None]:
    """End the process when the block takes longer than `seconds`.

    say: prints what has to be said, and gives the exit status. Files and locks are left as by
    kill -9, which whoever comes next copes with.
    """

    def expire() -> None:
        status = say(DeadlineError(what, seconds, hint="is the cluster up: `ceph status`?"))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
