"""The commands: daemon's start, check, client, the legacy users' file."""
