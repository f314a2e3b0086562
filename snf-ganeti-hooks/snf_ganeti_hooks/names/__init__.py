"""Names of instances in DNS: what jobs change of them, and what is still to be sent."""
