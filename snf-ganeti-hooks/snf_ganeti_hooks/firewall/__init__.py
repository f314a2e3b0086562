"""Which packets a NIC may send and get, as nftables' rules; nothing here acts."""
