"""Networking of instances on a Ganeti node: NIC scripts, firewall, addresses, names."""
