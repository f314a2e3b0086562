"""Facts as messages: what of a job may be seen outside, and in which form."""
