"""From jobs that changed to messages that are confirmed, and recorded as such."""
