"""The cluster: as whom it is reached, and who may write."""
