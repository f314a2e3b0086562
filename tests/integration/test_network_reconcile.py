"""What goes wrong with NICs is found and repaired: damages at random, and taps that vanish.

The judge is a picture of the kernel's own lists, taken before the damage.
"""

import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping

import pytest

from snf_ganeti.errors import CommandError
from testbed.bed import Bed
from testbed.deadline import wait_for
from testbed.hosting import SCRIPT, Hosting, NicWords, open_hosting
from testbed.kernel_picture import take_picture

SOAK = os.environ.get("SNF_SOAK") == "1"
DAMAGES = 200 if SOAK else 25
SEED = 20261124
SECONDS = 60.0
STATE = "/run/snf-ganeti-hooks"
LIMITED = "synnefo:network:0:limited"
ROUTED = {
    "MODE": "routed",
    "NETWORK_NAME": "public",
    "NETWORK_SUBNET": "198.51.100.0/24",
    "NETWORK_GATEWAY": "198.51.100.1",
    "NETWORK_SUBNET6": "2001:db8:1::/64",
    "NETWORK_GATEWAY6": "2001:db8:1::1",
    "NETWORK_TAGS": "nfdhcpd",
}
PRIVATE = {
    "MODE": "bridged",
    "LINK": "prv0",
    "NETWORK_NAME": "private",
    "NETWORK_SUBNET": "10.0.0.0/24",
    "NETWORK_TAGS": "private-filtered",
    "NETWORK_MAC_PREFIX": "aa:00:01",
}
NICS = (
    NicWords("tap0", "aa:00:00:00:00:10", {**ROUTED, "IP": "198.51.100.7"}),
    NicWords("tap1", "aa:00:00:00:00:11", {**ROUTED, "IP": "198.51.100.8", "LINK": "200"}),
    NicWords("tap2", "aa:00:01:00:00:12", {**PRIVATE, "IP": "10.0.0.5"}),
)
ASKING = NicWords("tap8", "aa:00:00:00:00:18", {**ROUTED, "IP": "198.51.100.9"})


@pytest.fixture(scope="module")
def hosting(bed: Bed) -> Iterator[Hosting]:
    """A node with three NICs, which nobody watches."""
    with open_hosting(bed.folder / "reconcile", bed.layers) as opened:
        opened.node.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        opened.add_station("up0", "02:00:00:00:00:01")
        opened.ip(
            "address add 192.0.2.2/24 dev up0",
            "address add 2001:db8:ff::2/64 dev up0 nodad",
            "link set up0 up",
            "route add default via 192.0.2.1",
            "route add default via 2001:db8:ff::1",
            "route add default via 192.0.2.1 table 200",
            "route add default via 2001:db8:ff::1 table 200",
            "link add prv0 type bridge",
            "link set prv0 up",
        )
        for nic in NICS:
            opened.add_guest(nic.tagged(LIMITED))
        yield opened


def shell(hosting: Hosting, command: str) -> None:
    hosting.node.run("sh", "-c", command, ok=range(256))


DAMAGE: dict[str, Callable[[random.Random], str]] = {
    "a NIC's chain is emptied": lambda rng: (
        f"nft flush chain netdev snf ingress-tap{rng.randrange(2)}"
    ),
    "a rule opens a profile": lambda rng: (
        f"nft insert rule {rng.choice(('inet', 'bridge'))} snf profile-limited accept"
    ),
    "a NIC is opened": lambda _: (
        "nft add element inet snf profile-unprotected { tap0 };"
        " nft add element bridge snf sources4 { tap2 . 10.0.0.77 }"
    ),
    "a NIC has another's mark": lambda _: (
        "nft delete element inet snf marks { tap1 };"
        " nft add element inet snf marks { tap1 : 0x20007700 }"
    ),
    "an element is deleted": lambda _: (
        "nft delete element inet snf guests { tap0 }; nft delete element arp snf guests { tap1 };"
        " nft delete element bridge snf profile-limited { tap2 }"
    ),
    "a set is emptied": lambda rng: (
        "nft flush set " + rng.choice(("inet snf macs", "bridge snf sources4", "arp snf dropped"))
    ),
    "a table is deleted": lambda rng: (
        f"nft delete table {rng.choice(('netdev', 'arp', 'inet', 'bridge'))} snf"
    ),
    "everything of nftables is deleted": lambda _: "nft flush ruleset",
    "the shared rules are emptied": lambda rng: (
        "nft flush chain "
        + rng.choice(("inet snf forward", "bridge snf guard", "inet snf reply", "arp snf input"))
    ),
    "half a transaction": lambda _: (
        "nft add element inet snf guests { tap77 };"
        " nft add element inet snf macs { tap77 . aa:00:00:00:00:77 }"
    ),
    "another release's rules": lambda _: (
        "nft add map inet snf to_guest '{ type ifname : verdict; }';"
        " nft add chain inet snf to-tap0; nft add rule inet snf to-tap0 accept;"
        " nft add element inet snf to_guest '{ tap0 : goto to-tap0 }'"
    ),
    "routes are deleted": lambda _: "ip route flush table all proto 205",
    "IPv6 routes are deleted": lambda _: "ip -6 route flush table all proto 205",
    "a stray route": lambda rng: (
        f"ip route add 198.51.100.{rng.randrange(20, 250)}/32 dev tap0 proto 205"
    ),
    "a proxy entry is deleted": lambda _: "ip neigh del proxy 198.51.100.7 dev up0",
    "a stray proxy entry": lambda rng: (
        f"ip neigh add proxy 198.51.100.{rng.randrange(20, 250)} dev up0 protocol 205"
    ),
    "a rule of a table is deleted": lambda _: (
        "ip rule del priority 20500; ip -6 rule del priority 20500"
    ),
    "a stray rule of a table": lambda rng: (
        f"ip rule add iif gone{rng.randrange(9)} lookup 77 priority 20500 protocol 205"
    ),
    "a tap leaves its bridge": lambda _: "ip link set tap2 nomaster",
    "a tap is down": lambda rng: f"ip link set tap{rng.randrange(3)} down",
    "netfilter sees no bridge": lambda _: (
        "ip link set prv0 type bridge nf_call_iptables 0 nf_call_ip6tables 0"
    ),
    "a stale state": lambda _: (
        f"sed 's/tap0/tap88/' {STATE}/nics/tap0.json >{STATE}/nics/tap88.json"
    ),
    "a state that can't be read": lambda _: f"echo garbage >{STATE}/nics/tap99.json",
}


def lose_tap(hosting: Hosting, rng: random.Random) -> None:
    """A NIC's tap goes, and what is left with it; later it comes again."""
    nic = rng.choice(NICS)
    hosting.ip(f"link del {nic.tap}")
    assert "its tap has gone" in reconcile(hosting)
    assert not list_traces(hosting, nic)
    hosting.add_guest(nic.tagged(LIMITED))


def kill_script(hosting: Hosting, rng: random.Random) -> None:
    """A NIC's script is killed at any point; its tap goes, as that start has failed."""
    words = {**rng.choice((ROUTED, PRIVATE)), "IP": "198.51.100.99"}
    if words["MODE"] == "bridged":
        words["IP"] = "10.0.0.99"
    nic = NicWords("tap9", "aa:00:01:00:00:99", words)
    hosting.add_station(nic.tap, nic.mac)
    limit = f"{rng.uniform(0.2, 2.0):.2f}"
    hosting.node.run(
        *("timeout", "--signal=KILL", limit, SCRIPT), env=nic.make_environ(), ok=range(-9, 256)
    )
    hosting.ip("link del tap9")
    reconcile(hosting)


LOSSES: dict[str, Callable[[Hosting, random.Random], None]] = {
    "a tap goes": lose_tap,
    "a script is killed": kill_script,
}


def reconcile(hosting: Hosting) -> str:
    return hosting.node.run("snf-network", "reconcile").text


def test_a_healthy_node_is_left_alone(hosting: Hosting) -> None:
    before = take_picture(hosting)
    assert hosting.node.run("snf-network", "check").text == ""
    assert reconcile(hosting) == ""
    assert take_picture(hosting) == before


def test_every_damage_is_repaired(hosting: Hosting) -> None:
    healthy = take_picture(hosting)
    rng = random.Random(SEED)
    known = [*DAMAGE, *LOSSES]
    names = [*known, *(rng.choice(known) for _ in range(DAMAGES))][:DAMAGES]
    rng.shuffle(names)
    for name in names:
        found = ""
        if name in LOSSES:
            LOSSES[name](hosting, rng)
        else:
            shell(hosting, DAMAGE[name](rng))
            found = reconcile(hosting)
            assert found, f"not seen: {name}"
        assert take_picture(hosting) == healthy, f"not repaired: {name}, found: {found}"
        assert hosting.node.run("snf-network", "check").text == "", name


ADDRESS_DAMAGE = (
    "pkill -9 -x dnsmasq",
    "pkill -STOP -x dnsmasq; pkill -9 -x dnsmasq",
    "ip link del $(basename $(echo /sys/class/net/snf-*))",
    "rm /run/snf-ganeti-hooks/dnsmasq/*; pkill -9 -x dnsmasq",
)


def test_the_service_repairs_addresses_by_itself(hosting: Hosting) -> None:
    """Judged by a real DHCP client."""
    rng = random.Random(SEED)
    names = [*ADDRESS_DAMAGE, *rng.choices(ADDRESS_DAMAGE, k=DAMAGES)][: DAMAGES // 6]
    guest = hosting.add_guest(ASKING)
    with hosting.serve():
        for name in ["true", *names]:
            shell(hosting, name)
            asked = ("busybox", "udhcpc", "-f", "-q", "-n", "-i", "eth0", "-t", "40", "-T", "1")
            try:
                said = guest.run(*asked, "-s", "/bin/true").stderr
            except CommandError as error:
                raise AssertionError(f"no address after: {name}") from error
            assert "198.51.100.9" in said, name
    hosting.ip("link del tap8")
    reconcile(hosting)


def test_check_finds_and_changes_nothing(hosting: Hosting) -> None:
    healthy = take_picture(hosting)
    shell(hosting, "nft flush chain netdev snf ingress-tap1")
    damaged = take_picture(hosting)
    checked = hosting.node.run("snf-network", "check", ok=(1,))
    assert checked.text == "tap1: its rules differ\n"
    assert take_picture(hosting) == damaged != healthy
    hosting.node.run("snf-network", "repair", "instance-of-tap1")
    assert take_picture(hosting) == healthy


def test_show_tells_operators(hosting: Hosting) -> None:
    rows = json.loads(hosting.node.run("snf-network", "show", "--json").text)
    first = rows[0]
    assert (first["instance"], first["tap"], first["network"]) == (
        *("instance-of-tap0", "tap0", "public"),
    )
    assert first["addresses"] == ["198.51.100.7", "2001:db8:1:0:a800:ff:fe00:10"]
    assert (first["profile"], first["note"]) == ("limited", "")
    table = hosting.node.run("snf-network", "show").text.splitlines()
    assert table[0].split() == [
        *("instance", "tap", "network", "kind", "addresses", "profile", "dropped"),
    ]
    assert len(table) == 1 + len(NICS)


def list_traces(hosting: Hosting, nic: NicWords) -> list[str]:
    """Everything that the kernel and the state still have under a tap's name or address."""
    listed = [*take_picture(hosting), *read_files(hosting)]
    needles = (f'"{nic.tap}"', f"-{nic.tap}", f"{nic.tap}.json", f'"{nic.words["IP"]}"')
    return [each for each in listed if any(needle in each for needle in needles)]


def read_files(hosting: Hosting) -> list[str]:
    found = hosting.node.run("find", STATE, "-type", "f").text.splitlines()
    return [each for each in found if "/dnsmasq/" not in each]


@pytest.mark.parametrize("base", [ROUTED, PRIVATE], ids=["routed", "private"])
def test_what_a_vanished_tap_left_goes_by_itself(hosting: Hosting, base: dict[str, str]) -> None:
    ip = "198.51.100.99" if base is ROUTED else "10.0.0.99"
    nic = NicWords("tap9", "aa:00:01:00:00:99", {**base, "IP": ip})
    before = take_picture(hosting)
    with hosting.serve():
        hosting.add_guest(nic)
        assert list_traces(hosting, nic)
        hosting.ip("link del tap9")
        wait_for(
            "the end of its traces",
            lambda: not list_traces(hosting, nic),
            SECONDS,
            explain=lambda: str(list_traces(hosting, nic)),
        )
    assert take_picture(hosting) == before


def test_a_hook_removes_what_is_left_where_no_service_runs(hosting: Hosting) -> None:
    before = take_picture(hosting)
    nic = NicWords("tap9", "aa:00:00:00:00:99", {**ROUTED, "IP": "198.51.100.99"})
    hosting.add_guest(nic)
    hosting.ip("link del tap9")
    assert list_traces(hosting, nic)
    hook = "/etc/ganeti/hooks/instance-stop-post.d/snf-ganeti-hooks"
    hosting.node.run(hook, env={"GANETI_HOOKS_PATH": "instance-stop"})
    assert not list_traces(hosting, nic)
    assert take_picture(hosting) == before


FOLDERS = {"routed": ROUTED, "bridged": PRIVATE}


@pytest.mark.parametrize("mode", FOLDERS)
def test_scripts_as_a_later_ganeti_runs_them(hosting: Hosting, mode: str) -> None:
    """Up and down by ACTION, after a migration of a routed NIC with MIGRATION_PHASE=post; its
    pages promise that down may come twice, and after the tap."""
    before, files = take_picture(hosting), sorted(read_files(hosting))
    base = FOLDERS[mode]
    ip = "198.51.100.99" if mode == "routed" else "10.0.0.99"
    nic = NicWords("tap9", "aa:00:01:00:00:99", {**base, "IP": ip})
    hosting.add_station(nic.tap, nic.mac)
    run_script(hosting, nic, mode, "up", {"MIGRATION_PHASE": "post"})
    assert list_traces(hosting, nic)
    assert hosting.node.run("snf-network", "check").text == ""
    run_script(hosting, nic, mode, "down")
    assert not list_rules(hosting, nic)
    hosting.ip("link del tap9")
    run_script(hosting, nic, mode, "down")
    assert take_picture(hosting) == before
    assert sorted(read_files(hosting)) == files


def run_script(
    hosting: Hosting, nic: NicWords, mode: str, action: str, words: Mapping[str, str] | None = None
) -> None:
    environ = {**nic.make_environ(), "ACTION": action, **(words or {})}
    hosting.node.run(f"/etc/ganeti/network/{mode}/{action}", env=environ)


def list_rules(hosting: Hosting, nic: NicWords) -> list[str]:
    """What list_traces finds, but for the tap itself and what goes with it."""
    own = ('"ifname": "tap9"', '"proxy": null')
    return [each for each in list_traces(hosting, nic) if not any(word in each for word in own)]


SECOND = {
    "of another kind": NicWords("tap9", "aa:00:01:00:00:98", {**PRIVATE, "IP": "10.0.0.98"}),
    "of the same": NicWords("tap9", "aa:00:01:00:00:98", {**ROUTED, "IP": "198.51.100.98"}),
}


@pytest.mark.parametrize("kind", SECOND)
@pytest.mark.parametrize("state", ["known", "lost"])
def test_a_new_tap_inherits_nothing(hosting: Hosting, kind: str, state: str) -> None:
    """Nobody cleaned up: a tap of the same name comes as another tenant's."""
    before, second = take_picture(hosting), SECOND[kind]
    first = NicWords("tap9", "aa:00:00:00:00:99", {**ROUTED, "IP": "198.51.100.99"})
    hosting.add_guest(first.tagged("synnefo:network:0:unprotected"))
    hosting.ip("link del tap9")
    if state == "lost":
        shell(hosting, f"rm {STATE}/nics/tap9.json; ip neigh del proxy 198.51.100.99 dev up0")
    assert list_traces(hosting, first)

    hosting.add_guest(second.tagged("synnefo:network:0:protected"))
    listed = json.dumps(take_picture(hosting))
    assert "aa:00:00:00:00:99" not in listed
    assert "198.51.100.99" not in listed
    if state == "lost":
        reconcile(hosting)  # only the state knows what the first one left outside of nftables
    assert hosting.node.run("snf-network", "check").text == ""

    hosting.ip("link del tap9")
    reconcile(hosting)
    assert take_picture(hosting) == before


def test_a_new_tap_inherits_nothing_while_the_service_runs(hosting: Hosting) -> None:
    """It comes before the service has come to what the earlier one left: the two wait for the
    same lock, and whichever is first, the end is the same."""
    node, before = hosting.node, take_picture(hosting)
    first = NicWords("tap9", "aa:00:00:00:00:99", {**ROUTED, "IP": "198.51.100.99"})
    second = NicWords("tap9", "aa:00:01:00:00:98", {**PRIVATE, "IP": "10.0.0.98"})
    protected = second.tagged("synnefo:network:0:protected").make_environ()
    with hosting.serve():
        for _ in range(3):
            hosting.add_guest(first.tagged("synnefo:network:0:unprotected"))
            with hosting.locked(), contextlib.ExitStack() as asking:
                hosting.ip("link del tap9", "link add tap9 type veth peer name far9")
                log = node.folder / "script.log"
                script = asking.enter_context(node.spawn(SCRIPT, env=protected, output=log))
                wait_for("its request", lambda: hosting.count_asking() == 1, SECONDS)
                assert first.mac in json.dumps(take_picture(hosting))
                waiting = asking.pop_all()
            with waiting:
                assert script.wait(SECONDS) == 0
            listed = json.dumps(take_picture(hosting))
            assert first.mac not in listed
            assert first.words["IP"] not in listed
            assert node.run("snf-network", "check").text == ""
            hosting.ip("link del tap9")
    reconcile(hosting)
    assert take_picture(hosting) == before


BAD = {
    "no bridge": ({**PRIVATE, "IP": "10.0.0.99", "LINK": "nowhere"}, "there is no bridge nowhere"),
    "a bridge that is none": ({**PRIVATE, "IP": "10.0.0.99", "LINK": "up0"}, "up0 is no bridge"),
    "no routing table": ({**ROUTED, "LINK": "nowhere"}, "there is no routing table 'nowhere'"),
    "an address twice": (
        {**ROUTED, "IP": "198.51.100.7"},
        "instance-of-tap0 has 198.51.100.7 already, on tap0",
    ),
    "a subnet that is none": ({**ROUTED, "NETWORK_SUBNET": "198.51.100.0/33"}, "is refused"),
}


@pytest.mark.parametrize("served", [False, True], ids=["by the script", "by the service"])
@pytest.mark.parametrize("name", BAD)
def test_a_start_that_fails_leaves_nothing(hosting: Hosting, name: str, served: bool) -> None:
    words, reason = BAD[name]
    before, files = take_picture(hosting), sorted(read_files(hosting))
    hosting.ip("link add tap9 type veth peer name far9")
    nic = NicWords("tap9", "aa:00:01:00:00:99", {"IP": "198.51.100.99", **words})
    with hosting.serve() if served else contextlib.nullcontext():
        failed = hosting.set_up(nic, ok=(2, 4))
    hosting.ip("link del tap9")
    (line,) = failed.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert reason in line
    assert take_picture(hosting) == before
    assert sorted(read_files(hosting)) == files
