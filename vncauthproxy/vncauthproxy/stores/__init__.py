"""What proxies behind one name share: tickets and sessions, in memory or in Redis."""
