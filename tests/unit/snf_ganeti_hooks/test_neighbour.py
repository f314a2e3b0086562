"""The checksum of an answer that is made by changing the question."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from snf_ganeti_hooks.networks.neighbour import find_balance, make_neighbour
from snf_ganeti_hooks.nic import Nic
from unit.snf_ganeti_hooks.nics import BRIDGED, ROUTED, make_nic

TAP_MAC = "cc:47:52:4e:45:54"
MACS = st.binary(min_size=6, max_size=6)


@given(MACS, MACS, st.binary(min_size=16, max_size=16))
def test_the_message_changes_and_its_sum_does_not(mac: bytes, tap: bytes, target: bytes) -> None:
    """Type, code, flags, target and the option, as RFC 4861, 4.3 and 4.4, draws them."""
    asked = struct.pack("!BBI", 135, 0, 0) + target + b"\1\1" + mac
    flags = 0xC0000000 | find_balance(mac.hex(":"), tap.hex(":"))
    answered = struct.pack("!BBI", 136, 0, flags) + target + b"\2\1" + tap
    assert sum_words(asked) % 0xFFFF == sum_words(answered) % 0xFFFF


def sum_words(data: bytes) -> int:
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def test_only_a_routed_nic_with_a_subnet_has_an_answer() -> None:
    assert answers(make_nic(ROUTED))
    assert not answers(make_nic(ROUTED, NETWORK_SUBNET6="", NETWORK_GATEWAY6=""))
    assert not answers(make_nic(BRIDGED))


def answers(nic: Nic) -> bool:
    rules = make_neighbour(nic, TAP_MAC)
    return any("fwd" in statement for rule in rules for statement in rule.statements)
