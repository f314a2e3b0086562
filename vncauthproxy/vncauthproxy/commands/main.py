"""`vncauthproxy`: the operator's command, and the daemon."""

import argparse
import logging
from pathlib import Path

from snf_ganeti import log
from snf_ganeti.errors import run_main
from vncauthproxy import controllers, daemon, settings
from vncauthproxy.commands import check


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vncauthproxy", description="The console proxy.")
    parser.add_argument("--debug", action="store_true", help="log what is refused, and why")
    parser.add_argument(
        "--etc", type=Path, default=Path("/etc"), help="where vncauthproxy/vncauthproxy.toml is"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve consoles until SIGTERM")
    checker = commands.add_parser("check", help="can this machine serve consoles?")
    checker.add_argument("--json", action="store_true", help="print one JSON object")
    adder = commands.add_parser("add-token", help="make a token for a controller and print it")
    adder.add_argument("name")
    return parser


def main() -> int:
    arguments = make_parser().parse_args()
    log.configure("vncauthproxy", debug=arguments.debug)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    chosen = settings.read(arguments.etc)
    if arguments.command == "check":
        return check.run(chosen, as_json=arguments.json)
    if arguments.command == "add-token":
        print(controllers.add_token(chosen.controllers.tokens, arguments.name))
        return 0
    daemon.run(chosen)
    return 0


def run() -> None:
    run_main(main)
