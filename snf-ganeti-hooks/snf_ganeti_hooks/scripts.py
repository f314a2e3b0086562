"""What Ganeti runs for each NIC: one entry point for `kvm-vif-bridge` and `network/MODE/*`."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from snf_ganeti import log, process
from snf_ganeti_hooks import settings, setup, state
from snf_ganeti_hooks.environ import is_ours, parse_nic
from snf_ganeti_hooks.node import Node, read_node

_GANETI_FUNCTIONS = "/usr/lib/ganeti/net-common"


def run_nic_script() -> int:
    """Set up, or for 3.2's `down` take down, the NIC in the environment. Raises SnfError."""
    log.configure("snf-ganeti-hooks")
    environ = dict(os.environ)
    if not is_ours(environ):
        _leave_to_ganeti(environ)
    elif _is_down(environ, Path(sys.argv[0]).name):
        _run_down(_read_node(), environ)
    else:
        with state.locked():
            setup.set_up(_read_node(), environ)
    return 0


def _read_node() -> Node:
    return read_node(settings.read())


def _is_down(environ: Mapping[str, str], program: str) -> bool:
    return environ.get("ACTION", "down" if program == "down" else "up") == "down"


def _run_down(node: Node, environ: Mapping[str, str]) -> None:
    """What has gone is gone: an unknown tap is no error."""
    with state.locked():
        gone = state.read_state(parse_nic(environ).tap, node.run)
        if gone is not None:
            setup.take_down(node, gone)


def _leave_to_ganeti(environ: Mapping[str, str]) -> None:
    """Open vSwitch as Ganeti 3.0 and 3.1 set it up: their script stops where ours begins."""
    if environ.get("MODE") == "openvswitch" and Path(_GANETI_FUNCTIONS).exists():
        kept = {name: environ[name] for name in ("INTERFACE", "LINK", "VLAN", "MODE")
                if name in environ}  # fmt: skip
        process.run(["bash", "-c", f". {_GANETI_FUNCTIONS}; setup_ovs"], env={"VLAN": "", **kept})
