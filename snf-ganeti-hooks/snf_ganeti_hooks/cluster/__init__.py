"""What Ganeti knows: its files on this node, its query daemon, instances' tags."""
