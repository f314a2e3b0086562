"""How a NIC's tap joins its kind of network."""
