"""Logging of the suite's programs: to stderr, which Ganeti and systemd keep."""

import logging
import sys


def configure(program: str, *, debug: bool = False) -> None:
    """Send every record to stderr, one line each, named after the program."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else logging.INFO,
        format=f"{program}: %(levelname)s: %(message)s" if debug else "%(message)s",
        force=True,
    )
    logging.captureWarnings(True)
    for chatty in ("urllib3", "requests", "paramiko"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
