"""Whether a tap is the access port that Ganeti asked for."""

import pytest

from snf_ganeti_hooks.networks.bridging import is_in_vlan
from snf_ganeti_hooks.nic import Nic

NIC = Nic("instance", "tap0", "aa:00:01:00:00:07", "bridged", link="br0", vlan=10)


@pytest.mark.parametrize(
    ("vlans", "expected"),
    [
        ({"tap0": {10: True}, "up0": {1: True, 10: False}}, True),
        ({"tap0": {10: True}, "up0": {10: True}}, True),  # the uplink is the site's own
        ({"tap0": {10: False}, "up0": {10: False}}, False),
        ({"tap0": {10: True, 11: False}, "up0": {10: False}}, False),
        ({"tap0": {1: True}, "up0": {10: False}}, False),
        ({"tap0": {10: True}, "up0": {1: True}}, False),
        ({"up0": {10: False}}, False),
        ({"tap0": {10: True}}, False),
    ],
)
def test_is_in_vlan(vlans: dict[str, dict[int, bool]], expected: bool) -> None:
    assert is_in_vlan(NIC, ["up0"], vlans) == expected
