"""The helper VM: its appliance, how it starts, and one run of it."""
