"""Ganeti's job queue: its files, and what changed in them."""
