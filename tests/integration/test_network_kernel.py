"""The same packets on Debian's own kernel, which tracks connections on a bridge itself.

This machine's kernel may lack that, and VLANs of bridges, so a VM with Debian's runs the tests.
"""

import os

from testbed import kernel_vm
from testbed.bed import Bed

SECONDS = 1500.0
SOAK = os.environ.get("SNF_SOAK") == "1"
MODULES = (
    "test_network_profiles.py",
    "test_network_site_profiles.py",
    "test_network_tenants.py",
    "test_network_own_addresses.py",
    "test_network_neighbours.py",
    "vlan_packets.py",
)
DIFFERENT = (
    "(lets_in or outlive) and (bridged or vlan) or reply_of_one_tenant or access_port"
    " or finds_a_neighbour or limit_of_its_own and bridged and IPv4"
)
"""What depends on the kernel most; an emulated machine takes its time for the rest."""
CHOSEN = () if SOAK else ("-k", DIFFERENT)


def test_bridged_packets_with_bridge_conntrack(bed: Bed) -> None:
    options = ("-x", "--quiet", "--no-header", "--durations=5", *CHOSEN)
    outcome = kernel_vm.run_tests(bed.layers, MODULES, options, SECONDS)
    assert outcome.status == 0, outcome.output[-6000:]
