"""The console proxy: a ticket opens one instance's screen, in a browser or a viewer, once."""
