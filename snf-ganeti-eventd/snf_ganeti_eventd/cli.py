"""The command `snf-ganeti-eventd`."""

import argparse
import datetime
import re
import time
from collections.abc import Callable, Mapping, Sequence

from snf_ganeti import log
from snf_ganeti.errors import InputError
from snf_ganeti_eventd import daemon
from snf_ganeti_eventd.commands import checks, replay, status, tail
from snf_ganeti_eventd.messages.instance import Query, make_luxi_query
from snf_ganeti_eventd.settings import Settings, read

Verb = Callable[[argparse.Namespace, Settings], int]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line. Raises SnfError."""
    arguments = make_parser().parse_args(argv)
    log.configure("snf-ganeti-eventd", debug=arguments.debug)
    settings = read()
    return VERBS[arguments.verb](arguments, settings)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snf-ganeti-eventd", description="Publish every job of a Ganeti cluster as events."
    )
    parser.add_argument("--debug", action="store_true", help="log more")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs.add_parser("run", help="publish events until SIGTERM")
    check = verbs.add_parser("check", help="say whether this node can publish, and if not, why")
    show = verbs.add_parser("tail", help="show events as they come; nothing is published")
    again = verbs.add_parser("replay", help="publish again from the queue and its archive")
    again.add_argument("--since", metavar="WHEN", default="", help="90m, 12h, 2d or an ISO time")
    again.add_argument("--job", metavar="N", type=int, action="append", default=[],
                       help="only this job; may be repeated")  # fmt: skip
    behind = verbs.add_parser("status", help="say how far behind the daemon is")
    for each in (check, show, behind):
        each.add_argument("--json", action="store_true", help="for machines")
    return parser


def parse_since(text: str, now: float) -> float:
    """Seconds since the epoch of `90m`, `2026-11-24`, `2026-11-24T21:00:00+01:00` … A time
    without a zone is local. Raises InputError."""
    if match := re.fullmatch(r"([0-9]{1,9})([smhd])", text):
        return now - int(match[1]) * _UNITS[match[2]]
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise InputError(
            f"--since {text!r} is no time", hint="90m, 12h, 2d or 2026-11-24T21:00:00"
        ) from None


def _make_query(settings: Settings) -> Query:
    return make_luxi_query(settings.luxi_socket, settings.luxi_timeout / 2)


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    return daemon.run(settings)


def _check(arguments: argparse.Namespace, settings: Settings) -> int:
    return checks.run(settings, _make_query(settings), as_json=arguments.json)


def _tail(arguments: argparse.Namespace, settings: Settings) -> int:
    return tail.run(settings, _make_query(settings), as_json=arguments.json)


def _replay(arguments: argparse.Namespace, settings: Settings) -> int:
    if not arguments.since and not arguments.job:
        raise InputError("replay needs --since WHEN or --job N")
    since = parse_since(arguments.since, time.time()) if arguments.since else 0.0
    return replay.run(settings, since, frozenset(arguments.job))


def _status(arguments: argparse.Namespace, settings: Settings) -> int:
    return status.run(settings, as_json=arguments.json)


VERBS: Mapping[str, Verb] = {
    "run": _run,
    "check": _check,
    "tail": _tail,
    "replay": _replay,
    "status": _status,
}
