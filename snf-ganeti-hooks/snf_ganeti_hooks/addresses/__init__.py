"""Addresses for guests: dnsmasq's configuration and processes; nfdhcpd's files."""
