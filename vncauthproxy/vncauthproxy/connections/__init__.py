"""Connections in asyncio: streams, TLS, HTTP, WebSockets, the listening ports."""
