"""The places that read and change the kernel: nftables, links, routes, neighbours."""
