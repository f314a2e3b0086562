"""The command `snf-rados-image`: golden images, and what Ganeti and Ceph know of each other."""

import argparse
import sys

from ext_storage_rados import deadline, settings
from ext_storage_rados.commands import (
    audit,
    flatten,
    listing,
    make_keys,
    publish,
    purge,
    retire,
    show,
    snapshot,
)
from snf_ganeti.errors import DeadlineError
from snf_ganeti.log import configure

PROGRAM = "snf-rados-image"
COMMANDS = (publish, listing, show, snapshot, retire, purge, flatten, audit, make_keys)
"""In the order of their help."""

_WHOLE_SECONDS = 24 * 3600.0


def main() -> int:
    arguments = make_parser().parse_args()
    configure(PROGRAM, debug=arguments.debug)
    with deadline.limited(PROGRAM, _WHOLE_SECONDS, _say):
        status: int = arguments.run(arguments, settings.read())
    return status


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Golden images on RADOS, and an audit of the volumes."
    )
    parser.add_argument("--debug", action="store_true", help="tell every step, on standard error")
    parser.add_argument("--user", default="", metavar="ID", help="cephx id, without client.")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(verbs)
    return parser


def _say(error: DeadlineError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_status
