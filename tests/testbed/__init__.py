"""Real services without systemd: machines in namespaces, a wire between them, Ganeti on them."""
