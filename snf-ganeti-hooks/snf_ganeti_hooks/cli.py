"""The command `snf-network`: what operators, and the service, call."""

import argparse
import contextlib
import logging

from snf_ganeti import log as logs
from snf_ganeti.errors import InputError, Terminated
from snf_ganeti_hooks import daemon, reconcile, report, settings, setup, state
from snf_ganeti_hooks.kernel import link
from snf_ganeti_hooks.nic import Kind
from snf_ganeti_hooks.node import Node, read_node
from snf_ganeti_hooks.reconcile import Finding

log = logging.getLogger(__name__)

VERBS = {
    "show": "every NIC of this node: instance, tap, network, addresses, profile, dropped packets",
    "check": "compare what should be with what is, and change nothing",
    "reconcile": "compare, and repair every difference",
    "repair": "set one tap, or all of an instance, up again from its state",
    "serve": "follow this node's NICs; the service does this",
}


def main() -> int:
    """Raises SnfError."""
    arguments = make_parser().parse_args()
    logs.configure("snf-network")
    reader = settings.SettingsReader()
    if arguments.verb == "serve":
        with contextlib.suppress(Terminated):  # the way in which a service ends
            daemon.serve(reader)
        return 0
    node = read_node(reader.read())
    if arguments.verb == "show":
        rows = report.read_rows(node)
        print(report.make_json(rows) if arguments.json else report.make_table(rows))
        return 0
    with state.locked():
        if arguments.verb == "repair":
            return repair(node, arguments.name)
        return compare(node, act=arguments.verb == "reconcile")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="snf-network", description="Networks of instances.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    made = {verb: verbs.add_parser(verb, help=text) for verb, text in VERBS.items()}
    made["show"].add_argument("--json", action="store_true", help="as JSON")
    made["repair"].add_argument("name", help="a tap, or an instance")
    return parser


def compare(node: Node, *, act: bool) -> int:
    """Print each difference; 1 when one is left."""
    findings = reconcile.find_differences(node)
    for finding in findings:
        print(f"{finding.subject}: {finding.problem}")
    for line in [] if act else find_lacks(node):
        print(line)
        findings.append(Finding("node", line, lambda: None))
    left = [finding for finding, _ in reconcile.repair(findings)] if act else findings
    return 1 if left else 0


def find_lacks(node: Node) -> list[str]:
    """What this node lacks for the NICs that it has, and only its administrator can give."""
    nics = [each.nic for each in state.read_states(node.run)[0].values()]
    routed = [nic for nic in nics if nic.kind is Kind.ROUTED]
    lacks = []
    if any(nic.addresses6 for nic in routed) and not link.read_sysctl("ipv6/conf/all/forwarding"):
        lacks.append("node: IPv6 is not forwarded; set net.ipv6.conf.all.forwarding = 1")
    for table in sorted({setup.read_table(nic) for nic in routed}):
        if table not in node.uplinks:
            lacks.append(f"node: routing table {table} has no default route")
    return lacks


def repair(node: Node, name: str) -> int:
    """Set NICs up again, by tap or instance. Raises SnfError."""
    states = state.read_states(node.run)[0].values()
    chosen = [each for each in states if name in (each.nic.tap, each.nic.instance)]
    if not chosen:
        raise InputError(f"no NIC here is named {name}", hint="snf-network show lists them")
    for each in chosen:
        if each.is_live:
            setup.set_up(node, each.environ, tags_known=each.tags_known)
        else:
            setup.take_down(node, each)
    return 0
