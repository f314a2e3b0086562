"""Logging of the suite's programs: to stderr, which Ganeti and systemd keep."""

import logging
import os
import sys

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
"""What syslog(3) calls a level and all above it."""


def configure(program: str, *, debug: bool = False) -> None:
    """Send every record to stderr, one line each, named after the program."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else logging.INFO,
        format=f"{program}: %(levelname)s: %(message)s" if debug else "%(message)s",
        force=True,
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Formatter(handler.formatter))
    logging.captureWarnings(True)
    for chatty in ("urllib3", "requests", "paramiko"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def make_prefix(level: int) -> str:
    """What tells the journal how grave a line is, by sd-daemon(3); empty where stderr is
    anything else."""
    try:
        stderr = os.fstat(2)
    except OSError:
        return ""
    if os.environ.get("JOURNAL_STREAM") != f"{stderr.st_dev}:{stderr.st_ino}":
        return ""
    return next(f"<{priority}>" for least, priority in _PRIORITIES if level >= least)


class _Formatter(logging.Formatter):
    """Another formatter's text, each line with its prefix."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        prefix = make_prefix(record.levelno)
        return "\n".join(prefix + line for line in self._inner.format(record).split("\n"))
