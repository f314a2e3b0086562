"""The operator's commands, but `run`."""
