"""The instances' side: what may be opened, where it is, and getting in there."""
