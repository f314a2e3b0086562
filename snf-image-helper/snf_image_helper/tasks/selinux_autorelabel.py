"""Labels for the files that were changed without SELinux: the first boot sets them."""

import re

from snf_image_helper.task import Context, Skip, Task

_CONFIG = "/etc/selinux/config"
_DISTRIBUTIONS = {"rhel", "fedora", "centos"}


def run(context: Context) -> None:
    assert context.guest is not None
    tree = context.guest.tree
    if not _DISTRIBUTIONS & set(context.guest.likes):
        raise Skip("the guest is not of the Red Hat family")
    config = tree.read_text(_CONFIG) if tree.is_file(_CONFIG) else "SELINUX=disabled"
    if re.search(r"^\s*SELINUX\s*=\s*disabled\b", config, re.MULTILINE):
        raise Skip("the guest has no SELinux")
    tree.write_text("/.autorelabel", "")


TASK = Task("SELinuxAutorelabel", 50, run, needs_mount=True)
