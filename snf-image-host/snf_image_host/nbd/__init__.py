"""Disks served over NBD on private sockets: the server in its jail, and a client."""
