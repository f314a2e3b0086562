"""The systems by which Linux guests configure their network, one file each."""

from snf_image_helper.network import ifupdown, netplan, network_manager, networkd
from snf_image_helper.network.backend import BackEnd

BACK_ENDS: tuple[BackEnd, ...] = (
    netplan.BACK_END,
    network_manager.BACK_END,
    networkd.BACK_END,
    ifupdown.BACK_END,
    networkd.IDLE_BACK_END,
)
"""The first that a guest uses gets its NICs. netplan drives two of the others; ifupdown
steps back behind what was enabled beside it, and networkd is everywhere but mostly idle."""
