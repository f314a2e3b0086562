"""Hostile images, made by code: each says what it attacks and how its deployment must end."""
