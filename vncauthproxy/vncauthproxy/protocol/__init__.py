"""The Remote Framebuffer protocol without I/O: handshakes and client messages."""
