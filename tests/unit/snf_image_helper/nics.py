"""The NICs that every back end for guests' networks must be able to configure."""

from snf_image_helper.protocol import Address, Nic

MAC, MAC2 = "aa:00:00:12:34:56", "aa:00:00:12:34:57"
STATIC4 = Address("192.0.2.5", 24, "192.0.2.1")
STATIC6 = Address("2001:db8::5", 64, "2001:db8::1")

CELLS: dict[str, tuple[Nic, ...]] = {
    "dhcp": (Nic(MAC, "dhcp"),),
    "static4": (Nic(MAC, STATIC4),),
    "static4 without gateway": (Nic(MAC, Address("192.0.2.5", 24)),),
    "static6": (Nic(MAC, None, STATIC6),),
    "static6 without gateway": (Nic(MAC, None, Address("2001:db8::5", 64)),),
    "static6, link-local gateway": (Nic(MAC, None, Address("2001:db8::5", 64, "fe80::1")),),
    "slaac": (Nic(MAC, None, "slaac"),),
    "slaac_dhcp": (Nic(MAC, None, "slaac_dhcp"),),
    "dhcp6": (Nic(MAC, None, "dhcp"),),
    "dual": (Nic(MAC, "dhcp", "dhcp"),),
    "dual static": (Nic(MAC, STATIC4, STATIC6),),
    "routed": (
        Nic(
            MAC, Address("192.0.2.5", 32, "10.0.0.1"), Address("2001:db8::5", 128, "2001:db8:1::1")
        ),
    ),
    "two NICs": (Nic(MAC, "dhcp"), Nic(MAC2, STATIC4)),
    "nothing to do on the first": (Nic(MAC), Nic(MAC2, "dhcp")),
    "nothing to do": (Nic(MAC),),
}
