"""Beds that were left running: `python3 -m testbed list`, `enter BED MACHINE`, `down BED`."""

import argparse
import os

from snf_ganeti.errors import run_main
from testbed import leftovers
from testbed.bed import BEDS, close_bed, find_bed
from testbed.namespaces import make_enter_argv


def main() -> int:
    arguments = _make_parser().parse_args()
    if arguments.verb == "list":
        for name in leftovers.find_names(BEDS):
            print(name, "up" if leftovers.is_kept(BEDS / name) else "owned by a run, or dead")
    elif arguments.verb == "down":
        close_bed(arguments.bed)
    else:
        _enter(arguments.bed, arguments.machine, arguments.command or ["bash", "--login"])
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed", description="Beds that were left running.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="name the beds")
    down = verbs.add_parser("down", help="take a bed down")
    down.add_argument("bed")
    enter = verbs.add_parser("enter", help="run a command, or a shell, in a machine of a bed")
    enter.add_argument("bed")
    enter.add_argument("machine", help="wire, node1 …")
    enter.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def _enter(bed: str, name: str, command: list[str]) -> None:
    found = find_bed(bed)
    machine = found.wire.machine if name == "wire" else found.node(int(name.removeprefix("node")))
    argv = make_enter_argv(machine.pid, ["env", "HOME=/root", *command])
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    run_main(main)
