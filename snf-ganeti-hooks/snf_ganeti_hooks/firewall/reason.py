"""Why a packet is dropped: the number is in its mark then, and leads to its NIC's counter."""

from enum import Enum


class Reason(Enum):
    """mark: of a packet that is about to be dropped; words: for operators."""

    MAC = 1, "source MAC"
    ETHER_TYPE = 2, "EtherType"
    ARP = 3, "ARP"
    DHCP = 4, "DHCP server"
    DHCP6 = 5, "DHCPv6 server"
    ROUTER = 6, "router advertisement"
    IPV4 = 7, "source IPv4"
    IPV6 = 8, "source IPv6"
    FRAGMENT = 9, "fragment"
    ADVERT = 10, "neighbour advertisement"
    DETECTION = 11, "duplicate address detection"
    STATION = 12, "other station"
    NETWORK = 13, "other network"
    PROFILE = 14, "profile"

    def __init__(self, mark: int, words: str) -> None:
        self.mark = mark
        self.words = words


BY_MARK = {each.mark: each for each in Reason}
