"""Unprivileged, confined child processes: what touches an image runs in one."""
