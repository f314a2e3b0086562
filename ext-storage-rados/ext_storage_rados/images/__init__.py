"""Golden images: made of files and of volumes, cloned, retired."""
