"""An image's bytes on their way to a disk: unpacked, checked, without their zeros."""
