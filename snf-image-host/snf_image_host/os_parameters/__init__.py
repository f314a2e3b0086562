"""What a user asks for: the OS parameters and what is written inside them."""
