"""What is done for each NIC that Ganeti sets up, whoever does it: see `request`."""

import os
from collections.abc import Mapping
from pathlib import Path

from snf_ganeti import log, process
from snf_ganeti_hooks import settings, setup, state
from snf_ganeti_hooks.environ import is_ours, parse_nic
from snf_ganeti_hooks.node import Node, read_node
from snf_ganeti_hooks.state import NicState

_GANETI_FUNCTIONS = "/usr/lib/ganeti/net-common"


def run_nic_script() -> int:
    """Do in this process what a NIC script is for. Raises SnfError."""
    log.configure("snf-ganeti-hooks")
    environ = dict(os.environ)
    if not is_ours(environ):
        _leave_to_ganeti(environ)
    else:
        with state.locked():
            act(read_node(settings.read()), environ)
    return 0


def act(node: Node, environ: Mapping[str, str]) -> NicState | None:
    """Set up the NIC in an environment, or take it down, and give what was set up; the caller
    holds the lock. Raises SnfError, and then nothing of the NIC is left."""
    if environ.get("ACTION") != "down":
        return setup.set_up(node, environ)
    gone = state.read_state(parse_nic(environ).tap, node.run)
    if gone is not None:  # what has gone is gone: an unknown tap is no error
        setup.take_down(node, gone)
    return None


def _leave_to_ganeti(environ: Mapping[str, str]) -> None:
    """Open vSwitch as Ganeti 3.0 and 3.1 set it up: their script stops where ours begins."""
    if environ.get("MODE") == "openvswitch" and Path(_GANETI_FUNCTIONS).exists():
        kept = {name: environ[name] for name in ("INTERFACE", "LINK", "VLAN", "MODE")
                if name in environ}  # fmt: skip
        process.run(["bash", "-c", f". {_GANETI_FUNCTIONS}; setup_ovs"], env={"VLAN": "", **kept})
