"""One NIC up, against the same rules made by the usual commands, one process each."""

from bench.benchmark import Benchmark, Runs
from bench.node_nics import add_taps, make_nic, open_node, time_commands, time_script

_RUNS = 9


def measure() -> tuple[Runs, Runs]:
    ours, peer = [], []
    with open_node("nic-up") as hosting, hosting.serve():
        add_taps(hosting, range(1, 2 * _RUNS + 1))
        for number in range(1, _RUNS + 1):
            ours.append(time_script(hosting, number))
            peer.append(time_commands(hosting, make_script(_RUNS + number)))
    return ours, peer


def make_script(number: int) -> str:
    """Link, routes, proxies, no spoofing, and profile `limited`, for IPv4 and IPv6."""
    nic = make_nic(number)
    tap, mac, ip = nic.tap, nic.mac, nic.words["IP"]
    ip6 = f"2001:db8:1:0:a800:1ff:fe00:{number:x}"
    lines = [
        f"ip link set {tap} address cc:47:52:4e:45:54",
        f"ip link set {tap} up",
        *(f"echo 1 >/proc/sys/net/ipv4/conf/{tap}/{key}" for key in ("forwarding", "proxy_arp")),
        *(f"echo 1 >/proc/sys/net/ipv6/conf/{tap}/{key}" for key in ("forwarding", "proxy_ndp")),
        f"ip rule add iif {tap} lookup main",
        f"ip -6 rule add iif {tap} lookup main",
        f"ip route replace {ip} dev {tap}",
        f"ip -6 route replace {ip6} dev {tap}",
        f"ip neigh replace proxy {ip} dev up0",
        f"ip -6 neigh replace proxy {ip6} dev up0",
        f"ip -6 neigh replace proxy 2001:db8:1::1 dev {tap}",
        f"ebtables -t filter -N F{tap}",
        f"ebtables -t filter -A INPUT -i {tap} -j F{tap}",
        f"ebtables -t filter -A F{tap} -s ! {mac} -j DROP",
        f"ebtables -t filter -A F{tap} -p ARP --arp-ip-src ! {ip} -j DROP",
        f"ebtables -t filter -A F{tap} -p ARP --arp-mac-src ! {mac} -j DROP",
    ]
    for tool, own, icmp in (("iptables", ip, "icmp"), ("ip6tables", ip6, "ipv6-icmp")):
        lines += [
            f"{tool} -t mangle -N f{tap}",
            f"{tool} -t mangle -A PREROUTING -i {tap} -j f{tap}",
            f"{tool} -t mangle -A f{tap} -m mac ! --mac-source {mac} -j DROP",
            f"{tool} -t mangle -A f{tap} -p udp --sport 67 -j DROP",
            f"{tool} -t mangle -A f{tap} ! -s {own} -j DROP",
            f"{tool} -N t{tap}",
            f"{tool} -A FORWARD -o {tap} -j t{tap}",
            f"{tool} -A t{tap} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            f"{tool} -A t{tap} -p {icmp} -j ACCEPT",
            f"{tool} -A t{tap} -p tcp -m multiport --dports 22,3389 -j ACCEPT",
            f"{tool} -A t{tap} -j DROP",
        ]
    return "\n".join(lines)


BENCHMARK = Benchmark(
    name="nic-up",
    unit="s",
    goal=0.4,
    peer_name="ip, iptables, ebtables",
    measure=measure,
)
