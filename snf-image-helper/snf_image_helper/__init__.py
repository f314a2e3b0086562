"""What runs inside the helper VM: the customization of an instance's disks."""
