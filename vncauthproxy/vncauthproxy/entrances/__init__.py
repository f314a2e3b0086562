"""The ways in: who connects, and how a client comes to its session."""
